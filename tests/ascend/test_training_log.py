"""The training log, on a real one and on what can become of it."""

import math
import random
from pathlib import Path

import pytest
from mindtune.engines.learning_rate import learning_rate
from mindtune.engines.mindspeed.training_log import (
    DONE,
    loaded_path,
    parse_iteration,
    saved_iteration,
)
from mindtune.settings.typed import typed

SAMPLE = (Path(__file__).parent / "training-log-sample.txt").read_text().splitlines()
LINE = (
    " [2025-07-28 12:00:00] iteration        1/     100 | consumed samples:           24 | elapsed time "
    "per iteration (ms): 9876.5 | learning rate: 1.000000E-06 | global batch size:    24 | loss: "
    "1.234567E+00 | loss scale: 1.0 | number of skipped iterations:   0 | number of nan iterations:   0 |"
)


def test_all_iterations_of_a_real_log_are_read():
    found = [iteration for line in SAMPLE if (iteration := parse_iteration(line))]
    assert [iteration.iteration for iteration in found] == list(range(1, 101))
    assert {iteration.total for iteration in found} == {100}
    assert {iteration.global_batch_size for iteration in found} == {24}
    assert [iteration.consumed_samples for iteration in found] == list(range(24, 2401, 24))
    assert found[0].loss == 5.822371 and found[-1].loss == 5.310454
    assert all(iteration.grad_norm is None and iteration.nan_iterations == 0 for iteration in found)
    assert found[0].samples_per_second == pytest.approx(24 / 0.5071)


def test_the_real_logs_learning_rates_are_those_of_our_schedule():
    train = typed("train", {
        "lr": 1e-5, "min_lr": 0.0, "train_iters": 100, "lr_warmup_fraction": 0.1,
        "lr_decay_style": "cosine",
    })  # fmt: skip
    for line in SAMPLE:
        if iteration := parse_iteration(line):
            expected = float(f"{learning_rate(iteration.iteration, train):.6E}")
            assert iteration.lr == pytest.approx(expected, rel=1e-6, abs=1e-21)


def test_what_else_a_real_log_says():
    assert [saved_iteration(line) for line in SAMPLE if saved_iteration(line)] == [50, 100]
    assert [loaded_path(line) for line in SAMPLE if loaded_path(line)] == ["ckpt/mm_path/tiny"]
    assert sum(DONE in line for line in SAMPLE) == 1


def test_fields_are_found_by_name_whatever_their_order_and_number():
    more = LINE.replace(
        " loss scale: 1.0 |",
        " throughput per GPU (TFLOP/s/GPU): 12.3 | grad norm: 3.142 | loss scale: 1.0 |",
    )
    head, *fields = LINE.rstrip("|").split("|")
    turned = "|".join([head, *reversed(fields)]) + "|"
    plain = parse_iteration(LINE)
    assert parse_iteration(more).grad_norm == 3.142
    assert parse_iteration(turned) == plain
    assert parse_iteration(more).loss == plain.loss == 1.234567


@pytest.mark.parametrize("value", ["nan", "NAN", "inf"])
def test_a_loss_that_is_no_number_or_left_out(value):
    assert not math.isfinite(parse_iteration(LINE.replace("1.234567E+00", value)).loss)
    assert parse_iteration(LINE.replace(" loss: 1.234567E+00 |", "")).loss is None
    assert (
        parse_iteration(LINE.replace("nan iterations:   0", "nan iterations:   2")).nan_iterations
        == 2
    )


def test_a_line_that_is_cut_at_any_place_is_no_iteration():
    assert all(parse_iteration(LINE[:length]) is None for length in range(len(LINE)))


def test_another_ranks_words_before_and_after_do_no_harm():
    assert parse_iteration(
        f"  barrier_with_L1_time .......{LINE}(min, max) time across"
    ) == parse_iteration(LINE)


def test_noise_of_another_process_within_a_line_gives_none_or_the_right_numbers():
    rng = random.Random(1)
    right = parse_iteration(LINE)
    for _ in range(300):
        place = rng.randrange(len(LINE))
        noise = rng.choice(["WARNING: x | y", "\x1b[31m", "\x00", "iteration 5/ 9", "[rank1] "])
        found = parse_iteration(LINE[:place] + noise + LINE[place:])
        if found and found.loss is not None and found.lr is not None:
            assert found.loss == right.loss or "loss" not in LINE[place - 30 : place + 2]


@pytest.mark.parametrize(
    "line", ["", " iteration 1/ 2 |", "[x] iteration 1/2", "validation loss at iteration 50 |"]
)
def test_other_lines(line):
    assert parse_iteration(line) is None
