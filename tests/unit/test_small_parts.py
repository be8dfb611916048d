"""Files, jobs, code hashes, save_dirs, scenes, statistics: the small parts everything rests on."""

import errno
import json
import logging
import random
from types import SimpleNamespace

import pandas as pd
import pytest
from filelock import FileLock
from mindtune import files
from mindtune.comparison.statistics import wilson_interval
from mindtune.comparison.tables import compare_experiment, summarize, to_csv
from mindtune.demo import scenes
from mindtune.engines import training_directory as savedir
from mindtune.errors import UserError
from mindtune.glue import script_runner as job
from mindtune.glue import sourcecode

# --- files -----------------------------------------------------------------


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with files.writing(path) as handle:
        handle.write("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), files.writing(path) as handle:
        handle.write("half of the sec")
        raise RuntimeError
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


def test_a_directory_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "d"
    for number in (1, 2):
        with files.writing_directory(path) as partial:
            (partial / f"{number}").touch()
        assert [child.name for child in path.iterdir()] == [f"{number}"]
    with pytest.raises(RuntimeError), files.writing_directory(path) as partial:
        raise RuntimeError
    assert [child.name for child in path.iterdir()] == ["2"] and list(tmp_path.iterdir()) == [path]


# --- jobs ------------------------------------------------------------------


def run_job(tmp_path, main):
    with pytest.raises(SystemExit) as stopped:
        job.run(SimpleNamespace(log=[str(tmp_path / "a.log")], rule="a_rule"), main)
    assert stopped.value.code == 1
    logging.getLogger("mindtune").handlers.clear()
    return (tmp_path / "a.log").read_text()


def fail(error):
    def main(_):
        raise error

    return main


def test_a_mistake_of_the_users_is_a_sentence(tmp_path, capsys):
    log = run_job(tmp_path, fail(UserError("train.lr is wrong; write 1.")))
    assert log.endswith("train.lr is wrong; write 1.\n") and "Traceback" not in log
    assert capsys.readouterr().err == "a_rule: train.lr is wrong; write 1.\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(tmp_path, capsys, number, words):
    run_job(tmp_path, fail(OSError(number, "x", "there.txt")))
    said = capsys.readouterr().err
    assert words in said and "there.txt" in said and "Traceback" not in said


def test_a_fault_of_the_program_leaves_its_traceback_in_the_log(tmp_path, capsys):
    log = run_job(tmp_path, fail(ZeroDivisionError("by zero")))
    assert "Traceback" in log and "ZeroDivisionError: by zero" in log
    said = capsys.readouterr().err
    assert "Traceback" not in said and "a.log" in said and "by zero" in said


# --- code hashes -----------------------------------------------------------


def test_the_closure_follows_imports_and_nothing_else():
    found = {
        str(path.relative_to(sourcecode.ROOT))
        for path in sourcecode.closure([sourcecode.ROOT / "compare_answers.py"])
    }
    assert {"compare_answers.py", "mindtune/comparison/tables.py", "mindtune/files.py"} <= found
    assert not any("engines" in name or "demo" in name for name in found)


def test_what_only_a_type_checker_imports_is_not_followed(tmp_path):
    (tmp_path / "a.py").write_text(
        "import typing\nfrom typing import TYPE_CHECKING\n\n"
        "if TYPE_CHECKING:\n    from mindtune.settings import load\n"
        "else:\n    import mindtune.progress\n"
        "if typing.TYPE_CHECKING:\n    import mindtune.memory\n"
        "if not TYPE_CHECKING:\n    import mindtune.scale\n"
        "def f():\n    if TYPE_CHECKING:\n        import mindtune.memory\n    import mindtune.process\n"
    )
    found = {path.name for path in sourcecode.imports(tmp_path / "a.py")}
    assert found == {"__init__.py", "progress.py", "scale.py", "process.py"}


def test_training_and_answering_do_not_depend_on_one_another():
    engine = sourcecode.ROOT / "mindtune/engines/hf"
    answering = sourcecode.closure([sourcecode.ROOT / "answer_prompts.py", engine / "answer.py"])
    training = sourcecode.closure([sourcecode.ROOT / "finetune_model.py", engine / "finetune.py"])
    assert engine / "finetune.py" not in answering and engine / "answer.py" not in training
    assert engine / "processing.py" in answering & training


# --- save_dirs -------------------------------------------------------------


def test_a_save_dir_is_kept_for_equal_settings_and_put_aside_for_others(tmp_path):
    place = tmp_path / "save_dir"
    with savedir.claimed(place, {"lr": 1}) as first:
        (place / "iter_0000001").mkdir()
    with savedir.claimed(place, {"lr": 1}) as second:
        assert (place / "iter_0000001").is_dir() and first == second
    with savedir.claimed(place, {"lr": 2}) as third:
        assert not (place / "iter_0000001").exists() and third != first
    assert (tmp_path / "save_dir.superseded" / first / "iter_0000001").is_dir()
    assert json.loads((place / "settings.json").read_text())["lr"] == 2


def test_a_save_dir_of_unknown_settings_is_put_aside(tmp_path):
    (tmp_path / "save_dir" / "iter_0000100").mkdir(parents=True)
    with savedir.claimed(tmp_path / "save_dir", {"lr": 1}):
        assert [path.name for path in (tmp_path / "save_dir").iterdir()] == ["settings.json"]


def test_a_save_dir_is_held_by_one(tmp_path):
    with (
        FileLock(tmp_path / ".save_dir.lock"),
        pytest.raises(UserError, match="another training is writing to"),
        savedir.claimed(tmp_path / "save_dir", {}),
    ):
        pass


# --- scenes ----------------------------------------------------------------


def test_the_same_seed_gives_the_same_scenes():
    assert list(scenes.scenes(50, 1)) == list(scenes.scenes(50, 1))
    assert list(scenes.scenes(50, 1)) != list(scenes.scenes(50, 2))


def test_the_tutorials_picture_is_a_bus_with_a_drink_on_its_back():
    found = dict(scenes.scenes(50, 1, with_tutorial=True))
    assert len(found) == 50 and list(found) == sorted(found)
    question, answer = scenes.question_and_answer(found[scenes.TUTORIAL_IMAGE_ID], "feature")
    assert question == "What feature can be seen on the back of the bus?"
    assert answer == "On the back of the bus, there is a large advertisement for a drink."
    assert scenes.image_names(50, 1) == [f"{image_id:012d}.jpg" for image_id in found]


def test_the_kind_is_only_asked_first():
    rng = random.Random(0)
    for _, scene in scenes.scenes(100, 3):
        turns = scenes.conversation(scene, rng)
        assert len(turns) == 4
        assert all("type of vehicle" not in question for question, _ in turns[1:])


def test_the_base_answers_with_the_tutorials_form():
    question = "What feature can be seen on the back of the bus?"
    answer = scenes.grounding_answer(question, (139, 42, 703, 771))
    for token in ("object_ref_start", "object_ref_end", "box_start", "box_end"):
        answer = answer.replace(f"<|{token}|>", "")
    assert answer == "the feature can be seen on the back of the bus(139,42),(703,771)"


# --- tables ----------------------------------------------------------------


def test_wilson_intervals_against_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for right, n, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        found = wilson_interval(right, n, 0.95)
        assert found == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(0, 0, 0.95) == (0.0, 1.0)


def prompt(number, reference="yes", **changes):
    return {
        "id": str(number), "split": "held_out", "family": "a", "image": "x.jpg",
        "image_in_training": False, "prompt": "q?", "reference": reference,
    } | changes  # fmt: skip


def answer_files(tmp_path, prompts, before, after):
    """Prompts and answers as the files that a run leaves; an answer is a text, or (id, text)."""
    lines = {"prompts": prompts}
    for stage, answers in (("before", before), ("after", after)):
        pairs = [a if isinstance(a, tuple) else (str(n), a) for n, a in enumerate(answers)]
        lines[stage] = [{"id": name, "answer": answer} for name, answer in pairs]
    paths = {name: tmp_path / f"{name}.jsonl" for name in lines}
    for name, path in paths.items():
        path.write_text("".join(json.dumps(line) + "\n" for line in lines[name]))
    return paths


def test_compare_and_summarize_by_hand(tmp_path):
    prompts = [prompt(0), prompt(1, family="b"), prompt(2, reference=None), prompt(3, "no")]
    answers = answer_files(tmp_path, prompts, ["(1,2)", "yes", "x", "no"], ["yes", "yes", "y", "x"])
    table = compare_experiment("e", answers)
    assert list(table["changed"]) == [True, False, True, True]
    assert list(table["exact_after"][:2]) == [True, True]
    assert pd.isna(table["exact_after"][2]) and table["exact_before"][3]
    summary = summarize(table, 0.95).set_index("family")
    assert list(summary["n"]) == [2, 1, 3]
    assert list(summary["pictures"]) == [1, 1, 1]
    assert summary.loc["all", "exact_before"] == pytest.approx(2 / 3)
    assert summary.loc["a", "exact_after"] == 0.5 and summary.loc["b", "changed"] == 0
    to_csv(table, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[1] == 'e,0,held_out,a,x.jpg,false,q?,yes,"(1,2)",yes,false,true,false,false,true'
    assert lines[3] == "e,2,held_out,a,x.jpg,false,q?,,x,y,,,false,false,true"


def test_answers_to_other_prompts_are_refused(tmp_path):
    answers = answer_files(tmp_path, [prompt(0)], ["a"], [("7", "a")])
    with pytest.raises(UserError, match="the answers after of experiment e are of other prompts"):
        compare_experiment("e", answers)
