"""Dictionaries for batches: what they are made of, and that the command makes one."""

import json

import pytest
import zstandard

from agent import cli
from agent.core.errors import ConfigError
from agent.delivery import batch, dictionary

BEAT = {"sv": 1, "device": "cam-1", "lane": "telemetry", "kind": "beat", "body": {"cpu_pct": 14.5}}


def samples(count):
    return [json.dumps(BEAT | {"seq": n, "id": f"{n * 7919:032x}"}).encode() for n in range(count)]


def test_a_small_batch_is_smaller_with_it_and_says_which_one_it_needs(tmp_path):
    (tmp_path / "d").write_bytes(dictionary.train(samples(500), 4096))
    few = b"\n".join(samples(8))
    plain, better = batch.compressor()(few), batch.compressor(tmp_path / "d")(few)
    assert len(better) < len(plain) - 50
    number = zstandard.ZstdCompressionDict((tmp_path / "d").read_bytes()).dict_id()
    assert zstandard.get_frame_parameters(better).dict_id == number > 0
    assert zstandard.get_frame_parameters(plain).dict_id == 0


def test_the_same_messages_make_the_same_dictionary():
    assert dictionary.train(samples(300), 4096) == dictionary.train(samples(300), 4096)


def test_too_few_messages_make_none():
    with pytest.raises(ConfigError, match="99 messages; allowed: from 100"):
        dictionary.train(samples(99), 4096)


def test_what_is_no_dictionary_is_said(tmp_path):
    (tmp_path / "d").write_text("nothing of the kind")
    with pytest.raises(ConfigError, match="no dictionary of zstd"):
        batch.compressor(tmp_path / "d")
    with pytest.raises(ConfigError, match="gone"):
        batch.compressor(tmp_path / "gone")


def test_the_command_makes_one_of_a_file_of_messages(tmp_path, capsys):
    (tmp_path / "s.jsonl").write_bytes(b"\n".join(samples(400)) + b"\n\n")
    argv = ["dictionary", "--samples", f"{tmp_path / 's.jsonl'}", "--out", f"{tmp_path / 'd'}"]
    assert cli.main([*argv, "--size-kib", "4"]) == 0
    assert "made of 400 messages" in capsys.readouterr().out
    assert 0 < (tmp_path / "d").stat().st_size <= 4096
    assert cli.main([*argv, "--size-kib", "0"]) == 78
    assert cli.main(["dictionary", "--samples", "/gone", "--out", "x"]) == 78
