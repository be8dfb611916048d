"""Training and answering with a framework that is played: what is asked of it, and what is believed."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from ascend.values import OPERATION, PARALLEL, RECORDED, TRAIN
from mindtune.engines import training_check
from mindtune.engines.converting import converter
from mindtune.engines.mindspeed.cache import cache_directory
from mindtune.engines.ordering import in_order
from mindtune.engines.requests import PrepareJob
from mindtune.errors import UserError
from mindtune.files import read_json_lines
from mindtune.trackers import PLACE, Followers
from tracked import in_table, same, shown


@pytest.fixture(autouse=True)
def _hear_all(caplog):
    caplog.set_level("INFO", logger="mindtune")


def asked_text(question):
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


def options(start):
    words = start["arguments"]
    return dict(zip(words, [*words[1:], None], strict=True)), words


def test_a_training_leaves_checkpoints_and_a_table(played):
    lines = played.finetune()
    assert lines[0].startswith("iteration,consumed_samples,lr,loss")
    assert lines[1] == "1,2,7.5e-06,10.0,,100.0,20.00,,"
    assert len(lines) == 5
    assert (played.save_dir / "iter_0000004/mp_rank_00/distrib_optim.pt").is_file()
    (start,) = played.starts()
    asked, words = options(start)
    assert asked["--load"] == str(played.base / "mm") and asked["--lr"] == "1e-05"
    assert asked["--global-batch-size"] == "2" and asked["--adam-eps"] == "1e-08"
    assert {"--no-load-optim", "--no-load-rng", "--log-throughput", "--bf16"} <= set(words)
    assert "--no-save-optim" not in words
    data = json.loads((played.save_dir / "run/data.json").read_text())["dataset_param"]
    assert data["basic_parameters"]["dataset"] == str(played.base / "train.json")
    assert data["basic_parameters"]["dataset_dir"] == str(played.base / "images")
    assert not list(played.here.rglob("hacked"))


def test_trackers_show_a_training_that_was_interrupted(played):
    followers = Followers(["tensorboard"], played.save_dir / PLACE, "baseline", {})
    played.play(die_at=3)
    with closing(followers), pytest.raises(UserError):
        played.finetune(followers=followers)
    played.play()
    with closing(followers):
        played.finetune(followers=followers)
    assert list(shown(played.save_dir)["loss"]) == [1, 2, 3, 4]
    assert same(shown(played.save_dir), in_table(played.save_dir))


def test_the_framework_is_given_its_samples_in_the_order_of_the_seed(played):
    records = json.loads((played.base / "train.json").read_text())
    given, caches = {}, set()
    for seed in (None, 1, 2):
        shutil.rmtree(played.save_dir, ignore_errors=True)
        played.finetune(order_seed=seed)
        data = json.loads((played.save_dir / "run/data.json").read_text())["dataset_param"]
        path = Path(data["basic_parameters"]["dataset"])
        given[seed] = json.loads(path.read_text())
        caches.add(data["basic_parameters"]["cache_dir"])
        assert path.parent == (played.base if seed is None else played.save_dir / "run")
    assert given[None] == records
    for seed in (1, 2):
        assert given[seed] == in_order(records, seed) != records
    assert given[1] != given[2] and len(caches) == 3


def test_a_finished_training_is_not_started_again(played):
    played.finetune()
    played.finetune()
    assert len(played.starts()) == 1


def test_a_training_that_died_goes_on_with_optimizer_and_random_states(played, caplog):
    played.play(die_at=3)
    with pytest.raises(UserError, match=r"before iteration 4 was saved \(whole checkpoint: 2\)"):
        played.finetune()
    played.play()
    lines = played.finetune()
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    asked, words = options(played.starts()[-1])
    assert asked["--load"] == str(played.save_dir)
    assert not {"--no-load-optim", "--no-load-rng", "--no-save-optim"} & set(words)
    assert "--override-opt_param-scheduler" in words  # or a longer training could not go on
    assert "resuming from iteration 2" in caplog.text


def test_without_the_optimizer_a_warning_says_what_is_lost(played, caplog):
    played.play(die_at=3)
    with pytest.raises(UserError):
        played.finetune(save_optim=False)
    played.play()
    played.finetune(save_optim=False)
    _, words = options(played.starts()[-1])
    assert {"--no-load-optim", "--no-save-optim", "--no-load-rng", "--no-save-rng"} <= set(words)
    assert "a new warm-up" in caplog.text


def test_a_newest_checkpoint_that_is_cut_is_passed_over(played):
    played.play(cut=True)
    with pytest.raises(UserError, match="is missing or not whole"):
        played.finetune()
    assert (played.save_dir / "latest_checkpointed_iteration.txt").read_text() == "4"
    played.play()
    played.finetune()
    asked, _ = options(played.starts()[-1])
    assert asked["--load"] == str(played.save_dir)
    assert [line.split(",")[0] for line in
            (played.save_dir / "loss.csv").read_text().splitlines()[1:]] == ["1", "2", "3", "4"]  # fmt: skip


def test_a_training_from_random_weights_is_stopped(played):
    played.play(no_load=True)
    with pytest.raises(UserError, match="begun with random weights"):
        played.finetune()
    assert not list(played.save_dir.glob("iter_*"))
    played.play()
    played.finetune()
    asked, _ = options(played.starts()[-1])
    assert asked["--load"] == str(played.base / "mm")


def checkpoints(save_dir):
    return sorted(path.name for path in save_dir.glob("*iter_*"))


def test_the_last_checkpoint_alone_is_kept(played, caplog):
    played.play(die_at=3)
    with pytest.raises(UserError, match=r"whole checkpoint: 3\)"):
        played.finetune(save_interval=1, keep="last")
    assert checkpoints(played.save_dir) == ["iter_0000003"]
    played.play()
    lines = played.finetune(save_interval=1, keep="last")
    assert "resuming from iteration 3" in caplog.text
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert checkpoints(played.save_dir) == ["iter_0000004"]
    assert (played.save_dir / "latest_checkpointed_iteration.txt").read_text() == "4"


def test_a_newest_checkpoint_that_is_cut_leaves_the_one_before(played):
    played.play(cut=True)
    with pytest.raises(UserError, match="is missing or not whole"):
        played.finetune(keep="last")
    assert checkpoints(played.save_dir) == ["iter_0000002", "iter_0000004"]


def test_a_loss_that_is_no_number_stops_with_advice(played):
    played.play(nan_at=2)
    with pytest.raises(UserError, match=r"iteration 2 is not a number; lower train\.lr"):
        played.finetune()


def test_a_known_fault_is_said_with_its_remedy(played):
    played.play(say=["RuntimeError: NPU out of memory. Tried to allocate 2 GiB"], die_at=1)
    with pytest.raises(UserError, match="training failed: the device is out of memory: lower"):
        played.finetune()


def test_a_status_of_zero_is_not_believed_and_one_of_another_is_after_all_is_written(played):
    played.play(die_at=1, status=0)
    with pytest.raises(UserError, match="ended with status 0 before iteration 4"):
        played.finetune()
    played.play(status=3)
    assert len(played.finetune()) == 5


@pytest.mark.parametrize("status", [-9, 137])
def test_a_framework_that_was_killed_names_the_signal_and_memory(played, status):
    played.play(die_at=1, status=status)
    with pytest.raises(
        UserError,
        match=r"training was ended by signal 9 \(SIGKILL: memory ran out, most likely\) before",
    ):
        played.finetune()


def test_a_check_says_beforehand_what_training_would(played, base, tmp_path):
    """Nothing is started, and save_dir is not there."""
    converter("mindtune").prepare(
        PrepareJob.of("mindspeed", base / "base", tmp_path / "mm", parallel=PARALLEL)
    )
    shutil.rmtree(tmp_path / "mm/release")
    for words, given in (
        ("train.seed is 4294967296, but must be from 0 to 4294967295", {"seed": 2**32}),
        (r"there are 4 samples to train on, fewer than one step", {"micro_batch_size": 9}),
        ("the base checkpoint .* is not one of", {"mm": tmp_path / "mm"}),
    ):
        with pytest.raises(UserError, match=words):
            training_check("mindspeed")(played.job(**given), 0)
        training_check("mindspeed")(played.job(**given), TRAIN["train_iters"])
    training_check("mindspeed")(played.job(), 0)
    assert not played.save_dir.exists() and not (played.here / "starts.jsonl").exists()


def test_too_little_data_for_all_ranks_is_said_before_anything_starts(played):
    with pytest.raises(UserError, match="4 samples to train on, fewer than one step takes"):
        played.finetune(launch={"npus_per_node": 8}, global_batch_size=8)
    assert not (played.here / "starts.jsonl").exists()


def test_a_base_of_another_layout_is_refused_before_anything_starts(played, base, tmp_path):
    layout = {"tensor_model_parallel_size": 2}
    with pytest.raises(UserError, match="is not one of tp 2, pp 1"):
        played.finetune(launch={"npus_per_node": 2}, parallel=layout)
    job = PrepareJob.of("mindspeed", base / "base", tmp_path / "mm", parallel=PARALLEL | layout)
    converter("mindtune").prepare(job)
    with pytest.raises(UserError, match="has 2 ranks, but parallel asks for 1"):
        played.finetune(mm=tmp_path / "mm")
    assert not (played.here / "starts.jsonl").exists()


def test_directories_that_lost_their_x_bit_are_mended(played):
    copied = played.here / "mm"
    shutil.copytree(played.base / "mm", copied)
    copied.chmod(0o640)
    played.answer(model=copied)
    assert copied.stat().st_mode & 0o700 == 0o700


def test_all_answers_come_from_one_start(played):
    answers = played.answer()
    assert [line["id"] for line in answers] == ["0", "1", "2", "3"]
    assert list(answers[0]) == ["id", "image", "prompt", "answer", "tokens", "cut", "seconds"]
    assert answers[1]["answer"] == "an answer to " + asked_text(
        f"<|vision_start|><|image_pad|><|vision_end|>\n{answers[1]['prompt']}"
    )
    (start,) = played.starts()
    asked, words = options(start)
    assert asked["--load"] == str(played.base / "mm") and "--no-load-optim" in words
    assert start["environment"]["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:True"


def asked(played, tmp_path, *prompts):
    """A copy of the played place in which these prompts are asked."""
    place = tmp_path / "asked"
    shutil.copytree(played.base, place)
    lines = [json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts]
    (place / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    return replace(played, base=place)


TWO = {"id": "t", "images": ["1.jpg", "2.jpg"], "prompt": "<image>\n<image>\nWhich is red?"}
PAD = "<|vision_start|><|image_pad|><|vision_end|>"


def test_a_question_about_several_pictures_is_asked_with_all_of_them(played, tmp_path):
    end = {"id": "e", "images": ["1.jpg"], "prompt": "What is\u2028this?<image>"}
    answers = asked(played, tmp_path, TWO, end).answer()
    assert answers[0]["answer"] == "an answer to " + asked_text(f"{PAD}\n{PAD}\nWhich is red?")
    assert answers[0] | TWO == answers[0] and "image" not in answers[0]
    assert answers[1]["answer"] == "an answer to " + asked_text(f"What is\u2028this?{PAD}")
    job = json.loads((played.here / "run/answers_before/job.json").read_text())
    lines = Path(job["prompts"]).read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["images"] for line in lines if line] == [["1.jpg", "2.jpg"], ["1.jpg"]]
    assert job["kept_tokens"][2:4] == ["<|box_start|>", "<|box_end|>"]


def test_the_tutorials_script_asks_about_one_picture_only(played, tmp_path):
    with pytest.raises(UserError, match=r"prompt t has 2, .*\(1\.jpg, 2\.jpg\); write pipeline"):
        asked(played, tmp_path, TWO).answer(inference="script")
    assert not (played.here / "starts.jsonl").exists()


def test_the_tutorials_script_asks_under_the_templates_system_text_only(played, tmp_path):
    (first, *_) = read_json_lines(played.base / "prompts.jsonl")
    one = {"id": "s", "image": first["image"], "prompt": "What is this?"}
    same = one | {"system": "You are a helpful assistant."}
    (answer,) = asked(played, tmp_path, same).answer(inference="script")
    assert answer["answer"].endswith("Asked: What is this?")
    with pytest.raises(
        UserError, match=r"system text but the template's, and prompt s has another"
    ):
        asked(played, tmp_path / "other", one | {"system": "In French."}).answer(inference="script")


def test_a_sample_that_would_be_cut_within_a_picture_is_said_before_anything_starts(played):
    with pytest.raises(
        UserError, match=r"record 0 of .*train.json .* train.seq_length 24 would cut"
    ):
        training_check("mindspeed")(played.job(seq_length=24), 0)
    assert not (played.here / "starts.jsonl").exists()


def test_answers_are_greedy_whatever_the_model_says(played, tmp_path):
    place = asked(played, tmp_path, TWO)
    (place.base / "base/generation_config.json").write_text(
        json.dumps({"repetition_penalty": 1.05, "no_repeat_ngram_size": 2, "do_sample": True,
                    "num_return_sequences": 2, "eos_token_id": 3, "pad_token_id": 4})
    )  # fmt: skip
    place.answer()
    made = json.loads((played.here / "run/answers_before/inference.json").read_text())
    generation = made["generation_config"]
    assert generation == json.loads((RECORDED / "inference.json").read_text())["generation_config"]


def test_a_model_without_a_chat_template_of_its_own_is_asked_as_any_other(played, tmp_path, caplog):
    place = asked(played, tmp_path, TWO)
    (place.base / "base/chat_template.json").unlink()
    config = place.base / "base/tokenizer_config.json"
    plain = {k: v for k, v in json.loads(config.read_text()).items() if k != "chat_template"}
    config.write_text(json.dumps(plain))
    assert place.answer()[0]["answer"].endswith("<|im_start|>assistant\n")
    assert "chat template" not in caplog.text
    (place.base / "base/chat_template.jinja").write_text("{{ messages[0].content }}")
    place.answer()
    assert caplog.text.count("the chat template in") == 1 and "chat_template.jinja" in caplog.text


def test_answers_that_are_too_few_are_none(played):
    played.play(die_at=3)
    with pytest.raises(UserError, match="2 of 4 prompts answered"):
        played.answer()
    assert not (played.here / "answers_before.jsonl").exists()


def test_a_checkpoint_that_lacks_a_shard_is_refused_before_anything_starts(played):
    layout = {"tensor_model_parallel_size": 2}
    with pytest.raises(UserError, match=r"mp_rank_01.*is missing"):
        played.answer(**layout)
    assert not (played.here / "starts.jsonl").exists()


def test_answers_of_random_weights_are_refused(played):
    played.play(no_load=True)
    with pytest.raises(UserError, match="random weights"):
        played.answer()


def test_the_tutorials_script_is_started_for_each_prompt(played):
    answers = played.answer(inference="script")
    assert len(played.starts()) == 4
    assert answers[2]["answer"] == f"It is picture.png.\nAsked: {answers[2]['prompt']}"
    assert answers[2]["tokens"] > 4 and answers[2]["cut"] is (answers[2]["tokens"] >= 24)
    played.play(mute=True)
    assert all(line["answer"] == "" for line in played.answer(inference="script"))


def test_shards_of_a_layout_are_all_wanted(played, base, tmp_path):
    layout = {
        "tensor_model_parallel_size": 2, "llm_pp_layers": [[1, 3]], "vit_pp_layers": [[4, 0]],
    }  # fmt: skip
    job = PrepareJob.of("mindspeed", base / "base", tmp_path / "mm", parallel=layout)
    converter("mindtune").prepare(job)
    played.finetune(launch={"npus_per_node": 4}, parallel=layout, mm=tmp_path / "mm")
    assert len(list((played.save_dir / "iter_0000004").iterdir())) == 4
    asked, _ = options(played.starts()[-1])
    assert asked["--pipeline-model-parallel-size"] == "2" and asked["--nproc_per_node"] == "4"


def test_a_caches_place_is_named_by_all_that_counts(base, tmp_path):
    def place(**changes):
        given = {
            "train_data": base / "train.json", "images": base / "images", "hf_dir": base / "base",
            "image_resolution": 262144, "seq_length": 1024, "versions": {"torch": "2.1.0"},
        }  # fmt: skip
        return cache_directory(tmp_path, **given | changes)

    images = tmp_path / "images"
    shutil.copytree(base / "images", images)
    first = place(images=images)
    assert first == place(images=images) == place()
    other = tmp_path / "train.json"
    other.write_text("[]")
    assert place(train_data=other) != first
    assert place(image_resolution=784) != first and place(seq_length=64) != first
    assert place(versions={"torch": "2.2.0"}) != first
    picture = next(images.iterdir())
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert place(images=images) != first


def test_an_mm_convert_that_fails_or_writes_nothing(played, base):
    job = PrepareJob.of(
        "mindspeed", base / "base", played.here / "mm", parallel=PARALLEL,
        framework=played.here / "machine.json", operation=OPERATION,
    )  # fmt: skip
    with pytest.raises(UserError, match="ended well, but wrote nothing"):
        converter("mm-convert").prepare(job)
    played.play(status=2)
    with pytest.raises(UserError, match="mm-convert hf_to_mm ended with status 2"):
        converter("mm-convert").prepare(job)
    assert not (played.here / "mm").exists()


def test_a_training_that_names_no_checkpoint_is_stopped(played):
    played.play(silent=True)
    with pytest.raises(UserError, match="but nothing said that"):
        played.finetune()
    assert not list(played.save_dir.glob("iter_*"))


def test_a_script_that_gives_no_answer(played):
    played.play(status=1)
    with pytest.raises(UserError, match="gave no answer to prompt 0"):
        played.answer(inference="script")
