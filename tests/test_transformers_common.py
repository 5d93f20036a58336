# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""transformers' own common tests, run against the classes of this package (`helpers/common/upstream.py` fetches them).

What is overridden or skipped here, upstream's own models override or skip as well; each place names one that does.
Whatever else is skipped, upstream's tests skip by themselves (no accelerator, no mixture of experts, ...).
"""

import contextlib
import copy
import functools
import unittest
from unittest import mock

import pytest
import torch
from parameterized import parameterized
from torch import nn
from transformers import BertTokenizer, PreTrainedModel

from helpers.common.testers import (
    AudioModelTester,
    FeatureExtractionTester,
    TextModelTester,
    ValorBertModelTester,
    ValorModelTester,
    ValorSwinModelTester,
    VideoProcessorTester,
    VideoSwinModelTester,
)
from helpers.common.upstream import (
    TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION,
    ConfigTester,
    GenerationTesterMixin,
    ModelTesterMixin,
    ProcessorTesterMixin,
    SequenceFeatureExtractionTestMixin,
    VideoProcessingTestMixin,
    _test_eager_matches_sdpa_inference,
)
from helpers.parity import FIXTURES
from modeling_valor import (
    ValorAudioConfig,
    ValorAudioModel,
    ValorConfig,
    ValorFeatureExtractor,
    ValorForCaptioning,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorModel,
    ValorProcessor,
    ValorTextConfig,
    ValorTextModel,
    ValorVideoProcessor,
    ValorVideoSwinConfig,
    ValorVideoSwinModel,
)


@contextlib.contextmanager
def subtest(test: unittest.TestCase, message: str = "", **parameters: object):
    try:
        yield
    except unittest.SkipTest:
        pass
    except Exception as error:
        error.add_note(f"Of the subtest {message or parameters}.")
        raise


@pytest.fixture(scope="module", autouse=True)
def subtests_are_part_of_their_test():
    """To report 11,000 subtests that passed takes ten seconds; the first that fails ends its test."""
    with mock.patch.object(unittest.TestCase, "subTest", subtest):
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tensors are tiny: a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ValorTextModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorTextModel,)

    def setUp(self):
        self.model_tester = TextModelTester()
        self.config_tester = ConfigTester(self, config_class=ValorTextConfig, hidden_size=36)

    def test_config(self):
        self.config_tester.run_common_tests()


class PatchEmbeddingTesterMixin:
    """Models whose input embedding is a convolution, which `nn.Embedding` cannot replace."""

    test_resize_embeddings = False

    def test_model_get_set_embeddings(self):
        # As in ASTModelTest and SwinModelTest
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            self.assertIsInstance(model.get_input_embeddings(), nn.Module)
            self.assertIsNone(model.get_output_embeddings())


class ValorAudioModelTest(PatchEmbeddingTesterMixin, ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorAudioModel,)

    def setUp(self):
        self.model_tester = AudioModelTester()
        self.config_tester = ConfigTester(self, config_class=ValorAudioConfig, has_text_modality=False, hidden_size=36)

    def test_config(self):
        self.config_tester.run_common_tests()


class ValorVideoSwinModelTest(PatchEmbeddingTesterMixin, ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorVideoSwinModel,)

    def setUp(self):
        self.model_tester = VideoSwinModelTester()
        # As in SwinModelTest: what a stage has is no common property
        self.config_tester = ConfigTester(
            self,
            config_class=ValorVideoSwinConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "image_size", "num_channels", "num_hidden_layers"],
            embed_dim=64,
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def run_with(self, option):
        """Outputs with `option` as an argument of the call, and as a field of the configuration."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = ValorVideoSwinModel._from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            yield model(**inputs, **{option: True})
            setattr(model.config, option, True)
            yield model(**inputs)

    def test_attention_outputs(self):
        # As in SwinModelTest: the axis of samples holds the windows too
        tester = self.model_tester
        for outputs in self.run_with("output_attentions"):
            shapes = [tuple(attention.shape) for attention in outputs.attentions]
            self.assertEqual(shapes, tester.attention_shapes)

    def test_hidden_states_output(self):
        # As in SwinModelTest: stages differ in resolution and width
        tester = self.model_tester
        for outputs in self.run_with("output_hidden_states"):
            shapes = [tuple(hidden_state.shape) for hidden_state in outputs.hidden_states]
            self.assertEqual(shapes, tester.hidden_state_shapes)


def naming_scores(model_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The model with its scores under the name by which the comparison of eager attention with sdpa finds scores."""

    class ScoringModel(model_class):
        @functools.wraps(model_class.forward)
        def forward(self, *args, **kwargs):
            return {"logits_per_text": super().forward(*args, **kwargs).similarity["t-av"]}

    return ScoringModel


class AlignmentTesterMixin:
    """Tests of models that return embeddings and scores: hidden states and attentions are those of their encoders."""

    additional_model_inputs = ["pixel_values_videos", "input_features"]
    _is_composite = True
    # As in VideoPrismClipModelTest
    test_attention_outputs = False

    @unittest.skip("as in VideoPrismClipModelTest: the encoders have tests of their own for it")
    def test_hidden_states_output(self):
        pass

    @unittest.skip("as in VideoPrismClipModelTest: the encoders have tests of their own for it")
    def test_retain_grad_hidden_states_attentions(self):
        pass

    @parameterized.expand(TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION)
    def test_eager_matches_sdpa_inference(self, *args):
        with mock.patch.object(self, "all_model_classes", [naming_scores(cls) for cls in self.all_model_classes]):
            _test_eager_matches_sdpa_inference(self, *args)


class ValorModelTest(AlignmentTesterMixin, ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorModel, ValorForRetrieval)
    # As in DeepseekOcr2ModelTest; what serves the decoder takes no part
    test_all_params_have_gradient = False

    def setUp(self):
        self.model_tester = ValorModelTester()
        self.config_tester = ConfigTester(
            self, config_class=ValorConfig, has_text_modality=False, common_properties=["projection_dim"]
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        # As in MetaClip2ModelTester
        return {**copy.deepcopy(inputs_dict), "return_loss": True}

    def test_config(self):
        self.config_tester.run_common_tests()


class ValorForPreTrainingTest(AlignmentTesterMixin, ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorForPreTraining,)

    def setUp(self):
        self.model_tester = ValorBertModelTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        # Without a masked text of its own the model masks the text anew at every call
        return {**inputs, "decoder_input_ids": inputs["input_ids"].flip(1), "labels": inputs["input_ids"]}


class ValorForGenerationTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (ValorForCaptioning, ValorForQuestionAnswering)
    additional_model_inputs = ["pixel_values_videos", "input_features"]
    _is_composite = True
    # As in DeepseekOcr2ModelTest; what serves alignment takes no part
    test_all_params_have_gradient = False

    def setUp(self):
        self.model_tester = ValorSwinModelTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if model_class is ValorForQuestionAnswering:
            # As long as the prompt of captioning
            inputs["question_input_ids"] = inputs["input_ids"][:, : self.model_tester.prompt_length]
        if return_labels:
            inputs["labels"] = inputs["input_ids"]
        return inputs

    def test_bc_cache_name_forward(self):
        """Of one group, as a cache holds one, and with the question that the class needs."""
        if not hasattr(ModelTesterMixin, "test_bc_cache_name_forward"):
            self.skipTest("of 5.24")
        config, inputs_dict = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            inputs = {**self._prepare_for_class(inputs_dict, model_class), "captioning_groups": ["t-av"]}
            with (
                mock.patch.object(self, "all_model_classes", [model_class]),
                mock.patch.object(
                    self.model_tester, "prepare_config_and_inputs_for_common", return_value=(config, inputs)
                ),
            ):
                super().test_bc_cache_name_forward()

    @unittest.skip("of 5.24: it asks for outputs of images, and VALOR has frames of videos (`get_video_features`)")
    def test_multimodal_outputs_are_returned(self):
        pass


class ValorProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = ValorProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return BertTokenizer(str(FIXTURES / "vocab.txt"))

    @classmethod
    def _setup_video_processor(cls):
        return ValorVideoProcessor()

    @classmethod
    def _setup_feature_extractor(cls):
        return ValorFeatureExtractor()

    # A chat's text is the question about its video or sound, not text to continue (tests/test_chat.py has chats)
    for _name in (
        *(f"test_apply_chat_template_{kind}" for kind in ("assistant_mask", "video_frame_sampling")),
        *(f"test_apply_chat_template_{kind}" for kind in ("video_0", "video_1", "decoded_video_0")),
        *(f"test_apply_chat_template_audio_{number}" for number in range(4)),
        "test_chat_template_jinja_kwargs",
    ):
        locals()[_name] = unittest.skip("VALOR's chats are questions about one video")(lambda self: None)

    @unittest.skip("`media_limits` of the processor are those of both its parts, and a call may have others")
    def test_init_arguments_not_in_processor_kwargs(self):
        pass


class ValorVideoProcessorTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = ValorVideoProcessor

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoProcessorTester()

    @property
    def video_processor_dict(self):
        return self.video_processor_tester.prepare_video_processor_dict()

    @unittest.skip(
        "a video of fewer frames than are asked for repeats its last one, as in 2023; this test wants an error"
    )
    def test_call_sample_frames(self):
        pass

    def test_video_processor_from_dict_with_kwargs(self):
        # As in SmolVLMVideoProcessingTest: one number is a square
        video_processor = ValorVideoProcessor.from_dict(self.video_processor_dict)
        self.assertEqual(video_processor.size, {"shortest_edge": 20})
        self.assertEqual(video_processor.crop_size, {"height": 18, "width": 18})
        video_processor = ValorVideoProcessor.from_dict(self.video_processor_dict, size=42, crop_size=84)
        self.assertEqual(video_processor.size, {"height": 42, "width": 42})
        self.assertEqual(video_processor.crop_size, {"height": 84, "width": 84})


class ValorFeatureExtractorTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = ValorFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = FeatureExtractionTester()
