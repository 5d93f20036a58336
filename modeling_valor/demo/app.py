# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The page: a tab to describe a clip and to ask about it, and a tab to search an index."""

import functools
import html
import inspect
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The page needs Gradio: `pip install modeling-valor[demo]` brings it.") from error

from ..media_limits import MediaError
from ..modeling_valor_decoder import ValorDecoderModel
from ..modeling_valor_heads import ValorForCaptioning
from ..processing_valor import ValorProcessor
from ..search import ValorIndex
from ..timelines import TimedCaption, TimelineWriter
from .clips import Clip, DemoLimits, TimeLimitError, fetch_link, uploaded
from .describing import Describer
from .gallery import Gallery
from .pictures import file_address, hits_html, player_html, seen_html, texts_html, timeline_html
from .server import DemoApp


LONGEST_TEXT = 300
"""Letters of a question or a search."""

_AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}
_FILES: dict[str, Any] = {"concurrency_id": "files", "concurrency_limit": 4, "api_visibility": "private"}
_MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
"""How events wait: not at all, for one of four downloads, for the model, which works on one thing at a time."""

_NOTHING_SEEN = "<p>Nothing yet.</p>"

_NOTHING = '<p class="valor">Give a video or a sound, and three captions of it appear here.</p>'

COMPARED = {"seen and heard": "av", "seen": "v", "heard": "a"}
"""What a search compares with, as the page calls it."""


def build_app(
    model: str | os.PathLike[str] | ValorDecoderModel,
    index: str | os.PathLike[str] | ValorIndex | None = None,
    *,
    processor: ValorProcessor | None = None,
    limits: DemoLimits | None = None,
    examples: Sequence[str | os.PathLike[str]] = (),
    title: str = "VALOR: what is seen and heard",
) -> DemoApp:
    """A Gradio app that describes videos and sounds, answers questions about them and, with an index, searches it.

    `build_app(...).launch()` serves it on this machine; nothing is loaded from elsewhere, and no file but those that a
    visitor gave and the hits of the index is reachable through it. One request is worked on at a time.

    Args:
        model: folder or Hub name of a checkpoint, or a head with a decoder such as `ValorForCaptioning`. It is loaded once.
        index: path of an index that was made with the model, or a `ValorIndex`; without one there is no search.
        processor: by default that of the checkpoint.
        limits: of size, time and waiting visitors.
        examples: clips that a visitor can choose. They are copied into the app's own folder.
        title: of the page.

    Raises:
        ValueError: the model has no decoder, or the index is of another model.
    """
    if isinstance(model, ValorDecoderModel):
        head, checkpoint = model, model.config._name_or_path
    else:
        head, checkpoint = ValorForCaptioning.from_pretrained(model).eval(), os.fspath(model)
    processor = processor or ValorProcessor.from_pretrained(checkpoint)
    if index is not None and not isinstance(index, ValorIndex):
        index = ValorIndex(index, model=head, processor=processor)
    if index is not None and index.backend.about() is None:
        raise ValueError(f"There is no index at {index.path}: `valor index` makes one.")
    if index is not None:
        index.model  # noqa: B018  # which says so if it is another one than that of the index
    page = Page(Describer(head, processor, limits or DemoLimits()), None if index is None else Gallery(index))
    return page.build(title, [os.fspath(example) for example in examples])


def in_one_sentence(work: Callable[..., Any]) -> Callable[..., Any]:
    """What a visitor did wrong, and what cannot be read, as the message that Gradio shows."""

    def shown(error: Exception) -> Exception:
        message = html.escape(" ".join(str(error).split()))  # Gradio takes it for HTML
        failure: Exception = gr.Error(message, print_exception=False)
        return failure

    expected = (MediaError, TimeLimitError, ValueError)
    if inspect.isgeneratorfunction(work):

        @functools.wraps(work)
        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from work(*args, **kwargs)
            except expected as error:
                raise shown(error) from error

        return steps

    @functools.wraps(work)
    def once(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except expected as error:
            raise shown(error) from error

    return once


class Page:
    """What the page does when something is given, asked or searched for.

    A visitor's [`Clip`] is kept on the server, so that no path is ever taken from a request.
    """

    def __init__(self, describer: Describer, gallery: Gallery | None = None):
        self.describer, self.gallery, self.limits = describer, gallery, describer.limits
        self.fetched: set[str] = set()  # files that Gradio deletes an hour later

    # --- What is done -------------------------------------------------------------------------------------------------

    @in_one_sentence
    def take(self, path: str | None) -> Clip | None:
        """The clip of a file that was given; None where it was taken away meanwhile."""
        return None if path is None else uploaded(path, self.limits)

    @in_one_sentence
    def fetch(self, address: str) -> Clip:
        """The clip of a link."""
        clip = fetch_link(self._checked(address, "Write the link of a video or sound."), self.limits, _folder())
        self.fetched.add(clip.path)
        return clip

    @in_one_sentence
    def describe(self, clip: Clip | None) -> tuple[str, str]:
        """The captions, and what the model sees."""
        if clip is None:
            return _NOTHING, _NOTHING_SEEN
        look = self.describer.look(clip)
        captions = texts_html(self.describer.captions(look))
        return captions, seen_html(look, self.describer.processor.feature_extractor)

    @in_one_sentence
    def play(self, clip: Clip) -> str:
        """A player of a clip that was fetched."""
        return player_html(self.describer.look(clip), file_address(clip.path))

    @in_one_sentence
    def ask(self, clip: Clip | None, question: str) -> str:
        """Answers from video, audio and both."""
        question = self._checked(question, "Write a question.")
        return texts_html(self.describer.answers(self.describer.look(self._given(clip)), question), question)

    @in_one_sentence
    def along(self, clip: Clip | None, seconds: float) -> Iterator[tuple[str, Any]]:
        """The timeline as it grows, and at its end the subtitles to download."""
        look = self.describer.look(self._given(clip))
        address, captions, note = file_address(look.clip.path), list[TimedCaption](), ""
        try:
            for caption in self.describer.timeline(look, seconds):
                captions.append(caption)
                yield timeline_html(look, "", captions, "..."), gr.DownloadButton(visible=False)
        except TimeLimitError:
            end = captions[-1].end
            note = f"Stopped after {self.limits.work_seconds:g} seconds of work, at second {end:.0f} of the clip."
        path = self._subtitles(look.clip, captions)
        yield timeline_html(look, address, captions, note), gr.DownloadButton(value=path, visible=True)

    @in_one_sentence
    def search(self, text: str, compared: str) -> str:
        """The hits of a text."""
        assert self.gallery is not None
        text = self._checked(text, "Write what to look for.")
        return self._found(text, self.gallery, self.gallery.search(text, self._modalities(compared)))

    @in_one_sentence
    def search_like(self, clip: Clip | None, compared: str) -> str:
        """The hits of the clip of the first tab."""
        assert self.gallery is not None
        look = self.describer.look(self._given(clip))
        return self._found(
            look.clip.name, self.gallery, self.gallery.search(look.clip.open(), self._modalities(compared))
        )

    def _found(self, query: str, gallery: Gallery, hits: Any) -> str:
        unproven = sum(not hit.proven for hit in hits)
        notes = [] if hits else ["Nothing was found: the index has no segment with these modalities."]
        if unproven:
            notes.append(f"Of {len(hits)} hits {unproven} are not proven: a better segment may have been missed.")
        return hits_html(query, gallery.cards(hits), notes)

    @staticmethod
    def _modalities(compared: str | None) -> str:
        if compared not in COMPARED:
            raise ValueError("Choose what to compare with.")
        return COMPARED[compared]

    @staticmethod
    def _checked(text: str, request: str) -> str:
        """A text with something in it.

        Raises:
            ValueError: there is nothing, which `request` asks for, or too much.
        """
        text = (text or "").strip()
        if not text:
            raise ValueError(request)
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"This text has {len(text)} letters; at most {LONGEST_TEXT} are accepted.")
        return text

    @staticmethod
    def _given(clip: Clip | None) -> Clip:
        if clip is None:
            raise ValueError("Give a video or a sound first.")
        if not os.path.exists(clip.path):
            raise ValueError(f"{clip.name} was deleted, an hour after it was given: give it again.")
        return clip

    @staticmethod
    def _subtitles(clip: Clip, captions: Sequence[TimedCaption]) -> str:
        path = Path(_folder(), secrets.token_hex(16), f"{Path(clip.name).stem}.vtt")
        path.parent.mkdir(parents=True)
        with TimelineWriter(path) as writer:
            for caption in captions:
                writer.write(caption)
        return str(path)

    # --- How it looks -------------------------------------------------------------------------------------------------

    def build(self, title: str, examples: Sequence[str] = ()) -> DemoApp:
        """The Gradio app."""
        routes = [] if self.gallery is None else [self.gallery.route]
        app = DemoApp(self.limits, routes, title=title)
        with app:
            gr.Markdown(f"# {title}\n\n{self._introduction()}")
            with gr.Tabs():
                with gr.Tab("Describe and ask"):
                    clip = self._describe_tab(examples)
                if self.gallery is not None:
                    with gr.Tab("Search"):
                        self._search_tab(clip)
        app.temp_file_sets.append(self.fetched)
        app.queue(max_size=self.limits.queue, default_concurrency_limit=1, api_open=False)
        return app

    def _introduction(self) -> str:
        limits, processor = self.limits, self.describer.processor
        frames, clips = processor.video_processor.num_frames, processor.feature_extractor.num_audio_clips
        return (
            "One model of vision, audio and language looks at a video, listens to it, and says what happens: from the "
            f"picture, from the sound, and from both. It takes {_count(frames, 'frame')} and {_count(clips, 'clip')} of "
            f"5.12 s of sound. A file may have {limits.max_mb:g} MB; its first {limits.max_seconds:g} seconds are used."
        )

    def _describe_tab(self, examples: Sequence[str]) -> Any:
        """The first tab; returns where the visitor's clip is kept."""
        clip = gr.State(None)
        with gr.Row():
            with gr.Column(min_width=300):
                with gr.Tabs():
                    video, sound, link, fetch, player = _sources()
                if examples:
                    chosen = gr.Examples(list(examples), inputs=[video], label="Examples", cache_examples=False)
            with gr.Column(min_width=300):
                gr.Markdown("### What happens")
                captions = gr.HTML(_NOTHING)
                question = gr.Textbox(label="Ask about it", placeholder="what is heard?", max_lines=1)
                ask = gr.Button("Ask", variant="primary")
                answers = gr.HTML()
        gr.Markdown("### What the model sees and hears")
        seen = gr.HTML(_NOTHING_SEEN)
        gr.Markdown("### A timeline, for a longer clip")
        with gr.Row():
            seconds = gr.Slider(
                2, 60, value=max(2, round(self.describer.whole_seconds)), step=1, label="Seconds of a segment", scale=2
            )
            along = gr.Button("Describe each segment", scale=1)
        timeline = gr.HTML()
        subtitles = gr.DownloadButton("Download as subtitles (.vtt)", visible=False)

        growing = along.click(self.along, [clip, seconds], [timeline, subtitles], show_progress_on=timeline, **_MODEL)
        shown = [clip, captions, seen, player, answers, timeline, subtitles]

        def follow(listen_to: Callable[..., Any], take: Callable[..., Any], source: Any) -> Any:
            """Takes what is given and has it described, after what was shown of the clip before is gone."""
            # By default a clip that is given while another is worked on would be dropped
            shared: dict[str, Any] = {"trigger_mode": "multiple"}
            forgotten = listen_to(_forget, None, shown, cancels=[growing], **shared, **_AT_ONCE)
            shared["show_progress_on"] = captions
            taken = forgotten.then(take, [source], [clip], **shared, **_FILES)
            described = taken.success(self.describe, [clip], [captions, seen], **shared, **_MODEL)
            for event in (taken, described):
                event.failure(_forget, None, shown, **_AT_ONCE)
            return described

        for source in (video, sound):
            follow(functools.partial(gr.on, [source.upload, source.stop_recording]), self.take, source)
            source.clear(_forget, None, shown, cancels=[growing], **_AT_ONCE)
        fetched = follow(functools.partial(gr.on, [fetch.click, link.submit]), self.fetch, link)
        fetched.success(self.play, [clip], [player], **_MODEL)
        if examples:
            follow(chosen.load_input_event.success, self.take, video)
        gr.on([ask.click, question.submit], self.ask, [clip, question], [answers], **_MODEL)
        return clip

    def _search_tab(self, clip: Any) -> None:
        """The second tab."""
        with gr.Row():
            text = gr.Textbox(label="What to look for", placeholder="a dog barks", max_lines=1, scale=3, min_width=280)
            compared = gr.Radio(
                list(COMPARED), value="seen and heard", label="Compare with what is", scale=2, min_width=280
            )
        with gr.Row():
            search = gr.Button("Search the index", variant="primary")
            like = gr.Button("Search by the clip of the first tab")
        hits = gr.HTML()
        gr.on([search.click, text.submit], self.search, [text, compared], [hits], **_MODEL)
        like.click(self.search_like, [clip, compared], [hits], **_MODEL)


def _sources() -> tuple[Any, Any, Any, Any, Any]:
    """Tabs with the ways to give a clip: video, sound, and link with its button and player."""
    with gr.Tab("Video"):
        video = gr.Video(label="Drop or record a video", sources=["upload", "webcam"], elem_classes="clip")
    with gr.Tab("Sound"):
        sound = gr.Audio(
            label="Drop or record a sound", sources=["upload", "microphone"], type="filepath", buttons=["download"]
        )
    with gr.Tab("Link"):
        link = gr.Textbox(label="Link of a video or sound", placeholder="https://", max_lines=1)
        fetch = gr.Button("Fetch and describe")
        player = gr.HTML()
    return video, sound, link, fetch, player


def _forget() -> tuple[Any, ...]:
    """Nothing is given, shown or answered, until something is read: so that no answer is about the clip before."""
    return None, _NOTHING, _NOTHING_SEEN, "", "", "", gr.DownloadButton(visible=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _folder() -> str:
    """Gradio's own folder, of which it serves files."""
    return str(gr.utils.get_upload_folder())
