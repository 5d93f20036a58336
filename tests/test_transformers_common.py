# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""transformers' own common tests, run against the classes of this package (`common/upstream.py` fetches them)."""

import copy
import unittest
from conftest import FIXTURES
from transformers import BertTokenizer
from unittest import mock

from common.testers import (
    AudioModelTester,
    FeatureExtractionTester,
    VideoProcessorTester,
    TextModelTester,
    ValorModelTester,
    ValorSwinModelTester,
    VideoSwinModelTester,
)
from common.upstream import (
    TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION, _test_eager_matches_sdpa_inference,
    ConfigTester, GenerationTesterMixin, ModelTesterMixin, ids_tensor, ProcessorTesterMixin, VideoProcessingTestMixin,SequenceFeatureExtractionTestMixin)
from parameterized import parameterized
from modeling_valor import (
    ValorAudioConfig,
    ValorAudioModel,
    ValorConfig,
    ValorForCaptioning,ValorProcessor,ValorVideoProcessor,ValorFeatureExtractor,
    ValorForPreTraining,
    ValorForQuestionAnswering,
    ValorForRetrieval,
    ValorModel,
    ValorTextConfig,
    ValorTextModel,
    ValorVideoSwinConfig,
    ValorVideoSwinModel,
)


class ValorTextModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorTextModel,)

    def setUp(self):
        self.model_tester = TextModelTester()
        self.config_tester = ConfigTester(self, config_class=ValorTextConfig, hidden_size=36)

    def test_config(self):
        self.config_tester.run_common_tests()


class ValorAudioModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorAudioModel,)
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = AudioModelTester()
        self.config_tester = ConfigTester(self, config_class=ValorAudioConfig, has_text_modality=False, hidden_size=36)

    def test_config(self):
        self.config_tester.run_common_tests()


class ValorVideoSwinModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorVideoSwinModel,)
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = VideoSwinModelTester()
        self.config_tester = ConfigTester(
            self,
            config_class=ValorVideoSwinConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "image_size", "num_channels", "num_hidden_layers"],
            embed_dim=64,
        )

    def test_config(self):
        self.config_tester.run_common_tests()


class ScoringValorModel(ValorModel):
    """Names its scores as the comparison of eager attention with sdpa expects those of contrastive models."""

    def forward(self, **kwargs):
        return {"logits_per_text": super().forward(**kwargs).similarity["t-av"]}


class ValorModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ValorModel, ValorForRetrieval, ValorForPreTraining)
    additional_model_inputs = ["pixel_values_videos", "input_features"]
    test_attention_outputs = False
    test_all_params_have_gradient = False
    _is_composite = True

    def setUp(self):
        self.model_tester = ValorModelTester()
        self.config_tester = ConfigTester(
            self, config_class=ValorConfig, has_text_modality=False, common_properties=["projection_dim"]
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if model_class is ValorModel:
            inputs["return_loss"] = True
        elif model_class is ValorForPreTraining:
            # Without them it draws the masks itself, anew at every call
            inputs["decoder_input_ids"] = inputs["input_ids"].flip(1)
            inputs["labels"] = inputs["input_ids"]
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    @parameterized.expand(TEST_EAGER_MATCHES_SDPA_INFERENCE_PARAMETERIZATION)
    def test_eager_matches_sdpa_inference(self, *args):
        with mock.patch.object(self, "all_model_classes", (ScoringValorModel,)):
            _test_eager_matches_sdpa_inference(self, *args)


class ValorForCaptioningTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (ValorForCaptioning, ValorForQuestionAnswering)
    additional_model_inputs = ["pixel_values_videos", "input_features"]
    test_all_params_have_gradient = False
    _is_composite = True

    def setUp(self):
        self.model_tester = ValorSwinModelTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if model_class is ValorForQuestionAnswering:
            inputs["question_input_ids"] = inputs["input_ids"].flip(1)
        if return_labels:
            inputs["labels"] = inputs["input_ids"]
        return inputs


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


class ValorVideoProcessorTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = ValorVideoProcessor

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoProcessorTester()

    @property
    def video_processor_dict(self):
        return self.video_processor_tester.prepare_video_processor_dict()


class ValorFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = ValorFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = FeatureExtractionTester()
