"""The workflow on a real Slurm: what fills the queue, takes too long, breaks or is cancelled.

Most of the time goes by in waiting, so all scenarios run at once, each on nodes of its own, and
each test waits for its own and looks at what it left.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from chaos import without_times
from filelock import FileLock
from slurm.cluster import Run, set_node, state_of, wait_until
from workflow.conftest import SMALL, Checkout, merged
from workflow.test_kill import MODEL

pytestmark = [pytest.mark.slurm, pytest.mark.long]
PROFILE = ("profiles/slurm", "--slurm-init-seconds-before-status-checks", "5")
SCENARIOS: dict[str, Callable[[Checkout, Path], SimpleNamespace]] = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def scenarios(request, slurm, finished, tmp_path_factory) -> Iterator[dict[str, Future]]:
    """Every scenario that a chosen test asks for, under way."""
    wanted = [item.get_closest_marker("slurm").args for item in request.session.items
              if item.module is request.module]  # fmt: skip
    names = {name for arguments in wanted for name in arguments}
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {
            name: pool.submit(SCENARIOS[name], finished, tmp_path_factory.mktemp(name) / "run")
            for name in SCENARIOS
            if name in names
        }


@pytest.fixture
def facts(request, scenarios) -> SimpleNamespace:
    """What the test's own scenario found."""
    own = [mark.args[0] for mark in request.node.iter_markers("slurm") if mark.args]
    return scenarios[own[0]].result(timeout=900)


def adapt(checkout: Checkout, profile: str = "slurm", **resources: object) -> None:
    """Write a site's own values into the one place of a profile; None takes a line away.

    `--set-resources` would put itself in the place of all that the profile says.
    """
    path = checkout.path / f"profiles/{profile}/config.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    on_accelerator = settings["set-resources"]["finetune_model"]
    on_accelerator |= resources
    for name in [name for name, value in resources.items() if value is None]:
        del on_accelerator[name]
    assert settings["set-resources"]["answer_prompts"] is on_accelerator
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")


def on(node: str) -> dict[str, str]:
    return {"slurm_extra": f"'--nodelist={node}'"}


def log(checkout: Checkout, experiment: str) -> str:
    return (checkout.path / f"logs/finetune_model/{experiment}.log").read_text(encoding="utf-8")


def assert_went_on(facts: SimpleNamespace, finished: Checkout) -> None:
    """The training went on from a checkpoint, and nothing shows that it was interrupted."""
    text = log(facts.checkout, facts.experiment)
    assert "from iteration 2" in text or "from iteration 4" in text
    model = MODEL.replace("baseline", facts.experiment)
    assert facts.checkout.read(model) == finished.read(model)
    losses = f"results/{facts.experiment}/loss.csv"
    there, here = facts.checkout.read(losses), finished.read(losses)
    assert without_times("loss.csv", there) == without_times("loss.csv", here)


@scenario
def full(finished: Checkout, path: Path) -> SimpleNamespace:
    """The whole workflow, with one NPU for all that wants one."""
    checkout = Checkout.make(path)
    adapt(checkout, **on("npu1"))
    run = Run(checkout, *PROFILE, "results/compare.csv")
    together, reasons = 0, set()

    def watch() -> bool:
        nonlocal together
        mine = run.jobs("finetune_model") + run.jobs("answer_prompts")
        together = max(together, sum(job.state == "RUNNING" for job in mine))
        reasons.update(job.reason for job in mine if job.state == "PENDING")
        return run.process.poll() is not None

    wait_until(watch, 600)
    run.ends()
    return SimpleNamespace(run=run, checkout=run.checkout, together=together, reasons=reasons)


@scenario
def overtime(finished: Checkout, path: Path) -> SimpleNamespace:
    """A training that hangs until its time is over, at a site without accelerators."""
    checkout = finished.without(path, "baseline")
    adapt(checkout, slurm_partition="cpu", gres=None, runtime=1)
    run = Run(checkout, *PROFILE, "results/baseline/finetune.json")
    job = run.training("baseline")
    run.checkpoint("baseline")
    run.hang()
    run.ends()
    return SimpleNamespace(run=run, checkout=checkout, experiment="baseline", job=job)


@scenario
def broken(finished: Checkout, path: Path) -> SimpleNamespace:
    """A node that goes down under a training, and comes back."""
    checkout = finished.without(path, "baseline")
    adapt(checkout, **on("npu2"))
    run = Run(checkout, *PROFILE, "results/baseline/finetune.json")
    job = run.training("baseline")
    run.checkpoint("baseline")
    set_node("npu2", "down")
    wait_until(lambda: state_of(job.number) == "PENDING")
    waited = run.process.poll() is None
    set_node("npu2", "resume")
    run.ends()
    return SimpleNamespace(
        run=run, checkout=checkout, experiment="baseline", job=job, waited=waited
    )


@scenario
def cancelled(finished: Checkout, path: Path) -> SimpleNamespace:
    """Of two trainings in the queue of one NPU, the running one is cancelled; then once more."""
    checkout = finished.without(path, "baseline", "hot")
    both = [f"results/{name}/finetune.json" for name in ("baseline", "hot")]
    adapt(checkout, **on("npu3"))
    run = Run(checkout, *PROFILE, "--retries", "0", "--", *both)
    wait_until(lambda: {job.state for job in run.jobs()} >= {"RUNNING", "PENDING"})
    job = next(job for job in run.jobs() if job.state == "RUNNING")
    experiment = job.comment.rpartition("_")[2]
    run.checkpoint(experiment)
    subprocess.run(["scancel", job.number], check=True)
    said = run.ends(good=False)
    other = checkout.path / f"results/{'hot' if experiment == 'baseline' else 'baseline'}"
    facts = SimpleNamespace(
        run=run, checkout=checkout, experiment=experiment, job=job, said=said,
        state=state_of(job.number), other=(other / "finetune.json").exists(),
        unfinished=not (checkout.path / f"results/{experiment}/finetune.json").exists(),
    )  # fmt: skip
    facts.again = Run(checkout, *PROFILE, "--", *both)
    facts.again.ends()
    return facts


@scenario
def spread(finished: Checkout, path: Path) -> SimpleNamespace:
    """One training on two nodes, a process on each: interrupted from the terminal, and gone on with."""
    checkout = finished.without(path, "baseline")
    checkout.configure(merged(SMALL, {"hf": {"nodes": 2}}))
    adapt(checkout, nodes=2, tasks=2, mpi="srun", **on("npu[4-5]"))
    run = Run(checkout, *PROFILE, "results/baseline/finetune.json")
    job = run.training("baseline")
    shown = subprocess.run(
        ["scontrol", "-o", "show", "job", job.number], check=True, capture_output=True, text=True
    ).stdout
    # What a job sees of Slurm when the executor has started it: the number, and little else.
    inside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = ["srun", "--overlap", "--nodes=2", "--ntasks=2", "sh", "-c", "echo $SLURMD_NODENAME"]
    nodes = subprocess.run(
        command, env=inside | {"SLURM_JOB_ID": job.number},
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout.split()  # fmt: skip
    run.checkpoint("baseline")
    run.process.send_signal(signal.SIGINT)
    run.ends(good=False)
    wait_until(lambda: state_of(job.number) not in ("RUNNING", "COMPLETING"))
    facts = SimpleNamespace(
        checkout=checkout, shown=shown, nodes=nodes, state=state_of(job.number),
        launch=(checkout.path / "results/baseline/save_dir/run/launch.sh").read_text(),
    )  # fmt: skip
    Run(checkout, *PROFILE, "results/baseline/finetune.json").ends()
    return facts


@scenario
def generic(finished: Checkout, path: Path) -> SimpleNamespace:
    """The other profile: a training, and one that fails as another holds its save_dir."""
    checkout = finished.without(path, "baseline", "hot")
    both = [f"results/{name}/finetune.json" for name in ("baseline", "hot")]
    options = ("--seconds-between-status-checks", "1", "--retries", "0", "--")
    with FileLock(checkout.path / "results/hot/.save_dir.lock"):
        run = Run(checkout, "profiles/generic", *options, *both)
        said = run.ends(good=False)
    return SimpleNamespace(run=run, checkout=checkout, said=said)


@scenario
def edited(finished: Checkout, path: Path) -> SimpleNamespace:
    """A training that waits in the queue while its configuration is edited."""
    checkout = finished.without(path, "baseline")
    adapt(checkout, slurm_extra="'--hold'")
    run = Run(checkout, *PROFILE, "results/baseline/finetune.json")
    job = run.training("baseline", "PENDING")
    checkout.configure(merged(SMALL, {"train": {"lr": 4e-3}}))
    subprocess.run(["scontrol", "release", job.number], check=True)
    run.ends()
    return SimpleNamespace(checkout=checkout)


@pytest.mark.slurm("full")
def test_what_finds_no_free_npu_waits_and_all_finish_with_the_bytes_of_a_local_run(facts, finished):
    assert facts.together == 1
    assert facts.reasons & {"Resources", "Priority"}
    for name in ("results/compare.csv", "results/summary.csv"):
        assert facts.checkout.read(name) == finished.read(name)


@pytest.mark.slurm("full")
def test_heavy_rules_are_jobs_and_light_ones_are_not(facts):
    rules = {job.comment.partition("_wildcards_")[0] for job in facts.run.jobs()}
    assert rules == {
        f"rule_{name}"
        for name in (
            "convert_data", "prepare_checkpoint", "finetune_model", "export_model", "answer_prompts"
        )
    }  # fmt: skip


@pytest.mark.slurm("full")
def test_logs_of_good_jobs_are_kept(facts):
    for job in facts.run.jobs("finetune_model"):
        [path] = facts.checkout.path.glob(f"logs/slurm/*/*/{job.number}.log")
        assert "saved checkpoint at iteration 6" in path.read_text(encoding="utf-8")


@pytest.mark.slurm("broken")
def test_a_training_whose_node_goes_down_waits_for_it_and_goes_on(facts, finished):
    assert facts.waited
    assert [job.number for job in facts.run.jobs()] == [facts.job.number]
    assert_went_on(facts, finished)


@pytest.mark.slurm("cancelled")
def test_a_cancelled_training_is_told_and_does_not_stop_the_others(facts):
    assert facts.state == "CANCELLED"
    assert facts.unfinished
    assert facts.other
    assert f"SLURM-job '{facts.job.number}' failed, SLURM status is: 'CANCELLED'" in facts.said
    assert f"logs/finetune_model/{facts.experiment}.log" in facts.said


@pytest.mark.slurm("cancelled")
def test_the_same_command_goes_on_where_a_training_was_cancelled(facts, finished):
    assert len(facts.again.jobs()) == 3
    assert_went_on(facts, finished)


@pytest.mark.slurm("spread")
def test_one_training_can_have_several_nodes(facts):
    assert "NumNodes=2" in facts.shown
    assert "TresPerNode=gres:npu:ascend910b:1" in facts.shown
    assert sorted(facts.nodes) == ["npu4", "npu5"]


@pytest.mark.slurm("spread")
def test_an_interrupt_cancels_the_jobs(facts):
    assert facts.state == "CANCELLED"


@pytest.mark.slurm("spread")
def test_the_processes_of_two_nodes_train_together_and_go_on_together(facts):
    assert "--nproc_per_node 1 --nnodes 2" in facts.launch
    text = log(facts.checkout, "baseline")
    assert "from iteration 2" in text or "from iteration 4" in text
    table = facts.checkout.read("results/baseline/loss.csv").decode().splitlines()
    assert [row.split(",")[:2] for row in table[1:]] == [[str(n), str(8 * n)] for n in range(1, 7)]


@pytest.mark.slurm("edited")
def test_a_job_works_with_the_settings_it_was_submitted_with(facts, finished):
    assert facts.checkout.read(MODEL) == finished.read(MODEL)
    target = "results/baseline/finetune.json"
    plan, causes = facts.checkout.asked(target)
    assert [job.rule for job in plan.needed()] == ["finetune_model"]
    assert [cause.text for cause in causes] == ["train.lr: 0.001 -> 0.004"]
    facts.checkout.configure(SMALL)
    assert facts.checkout.asked(target)[0].needed() == []


@pytest.mark.slurm("generic")
def test_the_generic_profile_submits_and_learns_what_became_of_it(facts, finished):
    assert facts.checkout.read(MODEL) == finished.read(MODEL)
    states = {job.comment: job.state for job in facts.run.jobs()}
    assert sorted(job.state for job in facts.run.jobs()) == ["COMPLETED", "FAILED"], states
    assert "another training is writing to results/hot/save_dir" in facts.said
    assert not (facts.checkout.path / "results/hot/finetune.json").exists()


@pytest.mark.slurm("overtime")
def test_a_training_that_exceeds_its_time_is_submitted_again_and_goes_on(facts, finished):
    assert f"SLURM-job '{facts.job.number}' failed, SLURM status is: 'TIMEOUT'" in facts.run.said()
    [path] = facts.checkout.path.glob(f"logs/slurm/*/*/{facts.job.number}.log")
    assert "DUE TO TIME LIMIT" in path.read_text(encoding="utf-8")
    assert_went_on(facts, finished)
