# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""The tokenizer of captions against recorded and live output of the Java program that it stands for."""

import importlib.util
import shutil

import pytest

from modeling_valor.evaluation import read_captions, tokenize


# Captions in one list, each with what pycocoevalcap's PTBTokenizer makes of it
RECORDED = [
    ("A man can't hear the dog's bark, and it's loud.", "a man ca n't hear the dog 's bark and it 's loud"),
    ("They've said: \"Don't stop!\" -- but he didn't.", "they 've said do n't stop but he did n't"),
    ("The engine (a big one) revs up... then stops", "the engine -lrb- a big one -rrb- revs up then stops"),
    ("A 5-year-old plays hip-hop, R&B and rock'n'roll", "a 5-year-old plays hip-hop r&b and rock 'n' roll"),
    ("Mr. Smith walks down St. John's Ave. at 5:30 p.m.", "mr. smith walks down st. john 's ave. at 5:30 p.m."),
    ("The clock strikes 10.5 times, 1,000 people cheer", "the clock strikes 10.5 times 1,000 people cheer"),
    ("Water drips into a 1 1/2 gallon bucket; 50% full", "water drips into a 1\u00a01/2 gallon bucket 50 % full"),
    ("I'm gonna say you cannot do that, y'all", "i 'm gon na say you can not do that y' all"),
    ("Birds chirp,then a car honks.The driver yells", "birds chirp then a car honks.the driver yells"),
    ("the U.S. flag flaps in the wind etc.", "the u.s. flag flaps in the wind etc."),
    ("A woman\u2019s voice says \u201chello\u201d \u2013 loudly\u2026", "a woman 's voice says hello loudly"),
    ("WOW!!! What is that?! a siren?", "wow !!! what is that ?! a siren"),
    ("and/or he/she walks 24/7 at 10km/h", "and/or he/she walks 24/7 at 10km/h"),
    ("They play 4/4 beats, e.g. jazz, i.e. swing", "they play 4/4 beats e.g. jazz i.e. swing"),
    ("<unk> makes a [MASK] sound & a {noise}", "<unk> makes a -lsb- mask -rsb- sound & a -lcb- noise -rcb-"),
    ("a caf\u00e9 with na\u00efve guests and \u00bd a cup", "a caf\u00e9 with na\u00efve guests and 1/2 a cup"),
    ("visit www.example.com or mail me@example.org now", "visit www.example.com or mail me@example.org now"),
    ("'Tis the kids' toys that rattle 'n' hum", "'t is the kids toys that rattle 'n' hum"),
    ("it costs $5.00 or \u00a34 (about \u20ac5)", "it costs $ 5.00 or # 4 -lrb- about $ 5 -rrb-"),
    ("sings in the key of C. The crowd claps", "sings in the key of c the crowd claps"),
    ("sings in the key of C.", "sings in the key of c."),
    ("the crowd claps", "the crowd claps"),
    ("sings in the key of C.", "sings in the key of c"),
    ("The crowd claps :)", "the crowd claps :-rrb-"),
    ("No. 5 and no. 6 race; no. They stop", "no. 5 and no. 6 race no they stop"),
    ("ma'am o'clock ne'er d'you c'mon 'em '90s 1950's", "ma'am o'clock ne'er d'you c'mon 'em '90s 1950 's"),
    ("tick-tock , tick -- tock --- boom ---- bang ----- end", "tick-tock tick tock boom bang ----- end"),
    ("double  spaces\tand tabs .", "double spaces and tabs"),
    ("snake_case @user #tag C++ a*b x=y ~ ^ |", "snake_case @user #tag c++ a * b x = y ~ ^ |"),
    ("555-1234 or (555) 555-1234 rings", "555-1234 or -lrb-555-rrb-\u00a0555-1234 rings"),
    ("\u266a la la \u266a \ud83d\ude00 \u2122 \u4e2d\u6587", "\u266a la la \u266a \u2122 \u4e2d\u6587"),
    ("lemme gimme gotta wanna dunno", "lem me gim me got ta wan na dunno"),
    ("", ""),
    ("couldn't've he'd've shouldn't should've", "could n't 've he 'd 've should n't should 've"),
    ("a..b ... a...b .... x. . . y", "a. b a. b x. y"),
]


def test_tokens_equal_recorded_output_of_the_java_tokenizer():
    assert tokenize([caption for caption, _ in RECORDED]) == [tokens for _, tokens in RECORDED]


@pytest.mark.parametrize(
    ("files", "count"),
    [
        (["audiocaps/val.csv", "audiocaps/test.csv"], 7350),
        (["clotho/train.csv", "clotho/val.csv", "clotho/test.csv"], 29645),
        (["msvd/captions_msvd.json"], 80827),
    ],
)
def test_captions_of_whole_corpora_equal_the_java_tokenizer(shared, files, count):
    if importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None:
        pytest.skip("pycocoevalcap or Java is not installed")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions = [caption for file in files for caption in read_captions(shared / "annotations" / file)]
    assert len(captions) == count
    expected = PTBTokenizer().tokenize({0: [{"caption": caption} for caption in captions]})[0]
    assert tokenize(captions) == expected


def test_line_breaks_within_a_caption_are_spaces():
    assert tokenize(["a dog\nbarks", "a\r\ncat", "two\u2028birds"]) == ["a dog barks", "a cat", "two birds"]


def test_no_captions_give_no_tokens():
    assert tokenize([]) == []
