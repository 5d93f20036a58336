# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The experiments of the paper's ablation study (section 5.3) and those on real data, as data.

A variant is a model configuration and the stages it is trained in; a measure is one column of a table; a finding is a
sentence of the paper with the comparisons that would show it. Nothing here depends on how long or how large anything is:
that is a `Scale`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


MODALITY_GROUPS = {
    "M1": ("t-v",),
    "M2": ("t-a",),
    "M3": ("t-av",),
    "M4": ("t-v", "t-av"),
    "M5": ("t-a", "t-av"),
    "M6": ("t-v", "t-a", "t-av"),
    "M7": ("t-v", "t-a", "t-av", "v-a", "a-tv", "v-ta"),
}
"""The paper's names for sets of modality groups (Table 8; Table 9 has the first six in this order, without names)."""


@dataclass(frozen=True)
class Stage:
    """One training, on the weights of the stage before it.

    Args:
        sources: the mixture, as in a recipe; the harness adds folders, batch size and frames.
        steps: which of the scale's numbers of steps.
    """

    sources: tuple[Mapping[str, Any], ...]
    steps: str = "pretraining"


@dataclass(frozen=True)
class Measure:
    """One column of a table, and one bar of each variant in the plot.

    Args:
        column: its heading.
        task: "retrieval", "captioning", "question_answering" or "classes" (which class's text fits a clip best).
        metric: what is taken of all that the task's evaluation gives; "R@1" without a group is that of the modalities'.
        modalities: what is read of the clips.
        dataset: whose test split.
        finetuned: measure a copy that was trained for this task and these modalities in a stage of its own, as the paper
            does in addition to (or instead of) measuring the pretrained model itself.
    """

    column: str
    task: str
    metric: str
    modalities: str = "av"
    dataset: str = "world"
    finetuned: bool = False

    @property
    def run(self) -> str:
        """Name of the evaluation that gives this metric; several measures may share one."""
        return "/".join((self.dataset, self.task, self.modalities, *(("finetuned",) if self.finetuned else ())))


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Args:
        config: fields of the model configuration that differ. `{"text_encoder_config": "bert"}` stands for a text encoder
            of the decoder's size with weights of its own.
        columns: which measures make sense for it; None: all.
        modalities: replaces those of all measures, for models that see or hear one thing only.
    """

    name: str
    stages: tuple[Stage, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    modalities: str | None = None

    def own(self, measure: Measure) -> Measure | None:
        """The measure as it is taken of this variant, or None."""
        if self.columns is not None and measure.column not in self.columns:
            return None
        modalities = self.modalities or measure.modalities
        metric = measure.metric
        if measure.task == "retrieval" and "/" not in metric:
            metric = f"t-{modalities}/{metric}"
        return replace(measure, modalities=modalities, metric=metric)


@dataclass(frozen=True)
class Finding:
    """A sentence of the paper, checked by comparisons (column, variant that should be better, variant that should not).

    Without comparisons the reader is sent to the table.
    """

    text: str
    comparisons: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One table: variants that differ in one thing, all measured alike."""

    name: str
    title: str
    variants: tuple[Variant, ...]
    measures: tuple[Measure, ...]
    findings: tuple[Finding, ...] = ()
    recipe: str = "valor_tiny.yaml"
    vocabulary: str = "world"


@dataclass(frozen=True)
class Scale:
    """How much is rendered, trained and measured.

    Args:
        train_clips, test_clips: of the world.
        portraits: still images that the vision encoder has learned from before anything else.
        steps: of each kind of stage.
        finetuned: tasks for which measures of fine-tuned copies are taken; for others their columns stay empty.
        batch_size, num_frames, image_size: of all trainings.
        model: changes to the configuration of valor-tiny, part by part.
        arguments: changes to the recipe's training arguments.
        workers: processes that read clips, at the most.
    """

    name: str
    train_clips: int
    test_clips: int
    portraits: int
    steps: Mapping[str, int]
    finetuned: tuple[str, ...]
    batch_size: int
    num_frames: int
    image_size: int
    model: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 1


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            # Two CPU cores: two to three minutes a variant
            "small",
            train_clips=2000,
            test_clips=200,
            portraits=16000,
            steps={
                "texts": 1000,
                "portraits": 2000,
                "pretraining": 320,
                "downstream": 480,
                "finetuning": 120,
                "real": 400,
            },
            finetuned=("question_answering",),
            batch_size=32,
            num_frames=4,
            image_size=64,
            model={
                "projection_dim": 128,
                "text_config": {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 512},
                "audio_config": {
                    "hidden_size": 96,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "intermediate_size": 384,
                },
                "vision_config": {
                    "image_size": 64,
                    "embed_dim": 48,
                    "depths": [1, 2],
                    "num_heads": [2, 4],
                    "window_size": [8, 4, 4],
                },
            },
            arguments={"learning_rate": 1e-3, "warmup_steps": 40, "bf16": False, "save_steps": 40},
        ),
        Scale(
            # One GPU: the architecture of valor-tiny
            "full",
            train_clips=10000,
            test_clips=500,
            portraits=40000,
            steps={
                "texts": 4000,
                "portraits": 4000,
                "pretraining": 1200,
                "downstream": 1800,
                "finetuning": 400,
                "real": 2000,
            },
            finetuned=("retrieval", "captioning", "question_answering"),
            batch_size=64,
            num_frames=8,
            image_size=96,
            arguments={"warmup_steps": 150, "save_steps": 300},
            workers=4,
        ),
    )
}


# --- Stages, sources and measures that several experiments share ------------------------------------------------------


def pretraining(alignment: tuple[str, ...] = (), captioning: tuple[str, ...] = ()) -> dict[str, Any]:
    """A source with the loss of eq. 7 for these modality groups, of which clips are read as far as needed.

    Twins, with the same sight and another sound, are neighbours in a batch where both modalities are read: otherwise
    sight alone would tell a batch's clips apart.
    """
    used = "".join((*alignment, *captioning))
    modalities = "".join(letter for letter in "av" if letter in used)
    source = {"name": "pretraining", "task": "pretraining", "dataset": "world", "modalities": modalities}
    source |= {"alignment_groups": list(alignment), "captioning_groups": list(captioning)}
    return {**source, "neighbours": 2} if modalities == "av" else source


def portraits(scale: Scale) -> Stage:
    """What the vision encoder of all models on the world starts with, as the paper's starts with CLIP."""
    source = {
        "name": "portraits",
        "task": "pretraining",
        "dataset": "portraits",
        "modalities": "v",
        "num_frames": 1,
        "neighbours": 8,
        "batch_size": 2 * scale.batch_size,
    }
    return Stage((source,), "portraits")


def downstream(task: str, modalities: str) -> dict[str, Any]:
    """A source that trains one task as `valor train retrieval`, `valor train captioning` and `valor train qa` do."""
    source = {"name": task, "task": task, "dataset": "world", "modalities": modalities}
    if task == "question_answering":
        source["questions_per_sample"] = 4
    if task == "retrieval" and modalities == "av":
        source["neighbours"] = 2
    return source


def retrieval(group: str, recall: int = 1, finetuned: bool = False) -> Measure:
    modalities = group.split("-")[1]
    name = f"{group.upper()} R@{recall}" + (", fine-tuned" if finetuned else "")
    # A pretrained model's embeddings serve all groups; a fine-tuned one is measured on what it was trained for
    return Measure(name, "retrieval", f"{group}/R@{recall}", modalities if finetuned else "av", finetuned=finetuned)


def captioning(modalities: str = "av", finetuned: bool = False) -> Measure:
    name = f"{modalities.upper()} CIDEr" + (", fine-tuned" if finetuned else "")
    return Measure(name, "captioning", "CIDEr", modalities, finetuned=finetuned)


ANSWERS = Measure("AV QA accuracy, fine-tuned", "question_answering", "accuracy", finetuned=True)
ANSWERS_COLUMN = ANSWERS.column
TASKS = ("retrieval", "captioning", "question_answering")


# --- The experiments --------------------------------------------------------------------------------------------------


def _figure_6() -> Experiment:
    pretrained = Stage((pretraining(MODALITY_GROUPS["M6"], MODALITY_GROUPS["M6"]),))
    variants, comparisons = [], {"with": [], "without": [], "pretraining": []}
    for before, stages in (("without", ()), ("with", (pretrained,))):
        for modalities in ("a", "v", "av"):
            tasks = Stage(tuple(downstream(task, modalities) for task in TASKS), "downstream")
            name = f"{modalities.upper()}, {before} pretraining"
            variants.append(Variant(name, (*stages, tasks), modalities=modalities))
    columns = ("Retrieval R@1", "Captioning CIDEr", "QA accuracy")
    for column in columns:
        for before in ("with", "without"):
            comparisons[before] += [
                (column, f"AV, {before} pretraining", f"{one}, {before} pretraining") for one in "AV"
            ]
        comparisons["pretraining"] += [
            (column, f"{which}, with pretraining", f"{which}, without pretraining") for which in ("A", "V", "AV")
        ]
    return Experiment(
        "figure6",
        "Figure 6: audio, video or both, with and without pretraining",
        tuple(variants),
        (
            Measure(columns[0], "retrieval", "R@1"),
            Measure(columns[1], "captioning", "CIDEr"),
            Measure(columns[2], "question_answering", "accuracy"),
        ),
        (
            Finding(
                "Without pretraining, both modalities are better than either alone on every task.",
                tuple(comparisons["without"]),
            ),
            Finding(
                "With pretraining, both modalities are better than either alone on every task.",
                tuple(comparisons["with"]),
            ),
            Finding("Pretraining helps every task with every modality.", tuple(comparisons["pretraining"])),
        ),
    )


def _table_8() -> Experiment:
    groups = ("t-v", "t-a", "t-av", "v-a")
    tv, ta, tav, va = (retrieval(group).column for group in groups)
    return Experiment(
        "table8",
        "Table 8: modality groups in alignment (MGA only)",
        tuple(Variant(name, (Stage((pretraining(alignment=groups),)),)) for name, groups in MODALITY_GROUPS.items()),
        (
            *(retrieval(group) for group in groups),
            *(retrieval(group, finetuned=True) for group in groups[:3]),
        ),
        (
            Finding(
                "I: T-V (M1) or T-A (M2) alone is good for that group and poor on T-AV, where T-AV training (M3) is "
                "better.",
                ((tv, "M1", "M2"), (ta, "M2", "M1"), (tav, "M3", "M1"), (tav, "M3", "M2")),
            ),
            Finding("I: M3 is weaker on T-V than M1 and on T-A than M2.", ((tv, "M1", "M3"), (ta, "M2", "M3"))),
            Finding(
                "II: adding T-V (M4) or T-A (M5) to T-AV helps that group and harms the other.",
                ((tv, "M4", "M3"), (ta, "M3", "M4"), (ta, "M5", "M3"), (tv, "M3", "M5")),
            ),
            Finding(
                "III: all three groups (M6) are decent everywhere: better than M3 on T-V and T-A, than M1 and M2 on T-AV.",
                ((tv, "M6", "M3"), (ta, "M6", "M3"), (tav, "M6", "M1"), (tav, "M6", "M2")),
            ),
            Finding(
                "IV: adding V-A, A-TV and V-TA (M7) improves their own benchmarks and harms T-V and T-AV.",
                ((va, "M7", "M6"), (tv, "M6", "M7"), (tav, "M6", "M7")),
            ),
        ),
    )


def _table_9() -> Experiment:
    av, v, a = (captioning(modalities).column for modalities in ("av", "v", "a"))
    names = list(MODALITY_GROUPS)[:6]
    return Experiment(
        "table9",
        "Table 9: modality groups in captioning (MGC only)",
        tuple(Variant(name, (Stage((pretraining(captioning=MODALITY_GROUPS[name]),)),)) for name in names),
        (
            *(captioning(modalities) for modalities in ("av", "v", "a")),
            *(captioning(modalities, finetuned=True) for modalities in ("av", "v", "a")),
        ),
        (
            Finding(
                "T-AV training (M3) captions audiovisual clips better than T-V (M1) or T-A (M2).",
                ((av, "M3", "M1"), (av, "M3", "M2")),
            ),
            Finding("T-V training (M1) captions from video better than T-AV training (M3).", ((v, "M1", "M3"),)),
            Finding(
                "Adding T-V (M4) to T-AV (M3) helps captions from video; adding T-A (M5) does not help those from audio.",
                ((v, "M4", "M3"), (a, "M3", "M5")),
            ),
            Finding(
                "All three groups (M6) are decent everywhere: better than M3 from video, than M1 and M2 from both.",
                ((v, "M6", "M3"), (av, "M6", "M1"), (av, "M6", "M2")),
            ),
        ),
    )


def _table_10() -> Experiment:
    rows = {
        "coarse, score fusion": ("coarse", "score", "uniform"),
        "coarse, feature fusion": ("coarse", "feature", "uniform"),
        "fine, score fusion": ("fine", "score", "uniform"),
        "fine, feature fusion": ("fine", "feature", "uniform"),
        "fine, feature fusion, weighted": ("fine", "feature", "learned"),
    }
    stages = (Stage((pretraining(alignment=("t-av",)),)),)
    first = retrieval("t-av").column
    names = list(rows)
    return Experiment(
        "table10",
        "Table 10: audiovisual fusion in alignment (MGA with T-AV only)",
        tuple(
            Variant(
                name,
                stages,
                {"alignment": alignment, "audiovisual_fusion": fusion, "token_weighting": weighting},
            )
            for name, (alignment, fusion, weighting) in rows.items()
        ),
        (
            retrieval("t-av"),
            retrieval("t-av", 5),
            retrieval("t-av", finetuned=True),
            Measure("T-AV R@5, fine-tuned", "retrieval", "t-av/R@5", finetuned=True),
        ),
        (
            Finding(
                "Fine-grained alignment with feature fusion is the best of the four combinations.",
                tuple((first, names[3], other) for other in names[:3]),
            ),
            Finding("Weighting tokens improves it further.", ((first, names[4], names[3]),)),
        ),
    )


def _table_11() -> Experiment:
    rows = {
        "merge attention": "merge",
        "audio-visual cross-attention": "audio_visual",
        "visual-audio cross-attention": "visual_audio",
        "parallel cross-attention": "parallel",
        "concatenate cross-attention": "concat",
    }
    stages = (Stage((pretraining(captioning=("t-av",)),)),)
    *others, best = rows
    return Experiment(
        "table11",
        "Table 11: cross-attention of the decoder (MGC with T-AV only)",
        tuple(Variant(name, stages, {"cross_attention_type": kind}) for name, kind in rows.items()),
        (captioning(), captioning(finetuned=True), ANSWERS),
        (
            Finding(
                "Concatenated cross-attention is the best of the five for captions and answers.",
                tuple((column, best, other) for column in (captioning().column, ANSWERS_COLUMN) for other in others),
            ),
        ),
    )


def _table_12() -> Experiment:
    groups = MODALITY_GROUPS["M6"]
    together = (Stage((pretraining(groups, groups),)),)
    rows = [Variant("apart: MGA alone", (Stage((pretraining(alignment=groups),)),), columns=("T-AV R@1",))]
    rows.append(
        Variant("apart: MGC alone", (Stage((pretraining(captioning=groups),)),), columns=("AV CIDEr", ANSWERS_COLUMN))
    )
    own = {"text_encoder_config": "bert", "alignment_loss_weight": 1.0}
    rows.append(Variant("not shared, alpha 1", together, own))
    rows += [Variant(f"shared, alpha {a}", together, {"alignment_loss_weight": a}) for a in (0.5, 1.0, 1.5, 3.0)]
    return Experiment(
        "table12",
        "Table 12: alpha, sharing of text encoder and decoder, both tasks together or apart",
        tuple(rows),
        (
            retrieval("t-av"),
            captioning(),
            retrieval("t-av", finetuned=True),
            captioning(finetuned=True),
            ANSWERS,
        ),
        (
            Finding(
                "Both tasks together, without sharing: worse retrieval and better captions than each task alone.",
                (
                    ("T-AV R@1", "apart: MGA alone", "not shared, alpha 1"),
                    ("AV CIDEr", "not shared, alpha 1", "apart: MGC alone"),
                ),
            ),
            Finding(
                "Sharing improves retrieval, with slightly worse captions.",
                (
                    ("T-AV R@1", "shared, alpha 1.0", "not shared, alpha 1"),
                    ("AV CIDEr", "not shared, alpha 1", "shared, alpha 1.0"),
                ),
            ),
            Finding(
                "A larger alpha is better for retrieval and worse for captions.",
                (
                    ("T-AV R@1", "shared, alpha 3.0", "shared, alpha 0.5"),
                    ("AV CIDEr", "shared, alpha 0.5", "shared, alpha 3.0"),
                ),
            ),
            Finding("Question answering hardly depends on these settings."),
        ),
    )


def _real_data() -> Experiment:
    """Sound and text, image and text, and pairs of both; `steps` of a source is its share of all steps."""
    sound = (
        {"name": "esc10", "dataset": "esc10", "modalities": "a", "steps": 2},
        {"name": "animals", "dataset": "animals", "modalities": "a", "steps": 2},
    )
    image = (
        {"name": "cifar10", "dataset": "cifar10", "modalities": "v", "steps": 4},
        {"name": "flickr", "dataset": "flickr", "modalities": "v", "steps": 2},
    )
    pairs = ({"name": "pairs", "dataset": "pairs", "modalities": "av", "steps": 2},)
    titles = {"esc10": "ESC-10", "animals": "Animals", "cifar10": "CIFAR-10"}
    of_sound, of_image, of_pairs = [], [], []
    for name, modalities, into in (("esc10", "a", of_sound), ("animals", "a", of_sound), ("cifar10", "v", of_image)):
        into += [
            Measure(f"{titles[name]} class", "classes", "accuracy", modalities, name),
            Measure(f"{titles[name]} mAP", "classes", "mAP", modalities, name),
            Measure(f"{titles[name]} caption", "captioning", "exact", modalities, name),
        ]
    of_image += [
        Measure("Flickr T-V R@1", "retrieval", "t-v/R@1", "v", "flickr"),
        Measure("Flickr T-V R@10", "retrieval", "t-v/R@10", "v", "flickr"),
        Measure("Flickr CIDEr", "captioning", "CIDEr", "v", "flickr"),
    ]
    for modalities, what in (("a", "sound"), ("v", "image"), ("av", "both")):
        of_pairs.append(Measure(f"Pairs class, {what}", "classes", "accuracy", modalities, "pairs"))

    def variant(name: str, sources: tuple, measures: list[Measure]) -> Variant:
        sources = tuple({"task": "pretraining", "max_length": 32, **source} for source in sources)
        return Variant(name, (Stage(sources, "real"),), columns=tuple(measure.column for measure in measures))

    return Experiment(
        "real-data",
        "Real sounds and images",
        (
            variant("sound-text", sound, of_sound),
            variant("image-text", image, of_image),
            variant("pairs", pairs, of_pairs),
            variant("all jointly", (*sound, *image, *pairs), [*of_sound, *of_image, *of_pairs]),
        ),
        (*of_sound, *of_image, *of_pairs),
        vocabulary="real-data",
    )


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (_figure_6(), _table_8(), _table_9(), _table_10(), _table_11(), _table_12(), _real_data())
}
"""All experiments by name."""
