"""The recipes of launch/: linted, their dry runs compared with tests/launch/expected/, and run against stand-ins.

Regenerate the expected texts with `python -m tests.launch.test_recipes` from the project's root, and review the difference.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from prn_jax.hosts import exit_codes
from tests.conftest import REPO

LAUNCH = REPO / "launch"
EXPECTED = Path(__file__).parent / "expected"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
TOOLS = ("gcloud", "kubectl", "xpk", "docker", "sbatch", "srun", "scontrol")

# name -> (arguments, settings)
DRY_RUNS: dict[str, tuple[list[str], dict[str, str]]] = {
  "tpu_vm_setup": (["tpu_vm.sh", "setup"], {"TPU_NAME": "pod", "ZONE": "us-west4-a", "BUCKET": "runs", "PROJECT": "p"}),
  "tpu_vm_train": (
    ["tpu_vm.sh", "train", "--dry-run", "--", "--config.optim.learning_rate=0.1", "--config.data=imagefolder:/my data"],
    {"TPU_NAME": "pod", "ZONE": "us-west4-a", "BUCKET": "runs", "RUN_NAME": "a1"},
  ),
  "tpu_vm_logs": (["tpu_vm.sh", "logs"], {"TPU_NAME": "pod", "ZONE": "us-west4-a"}),
  "tpu_vm_stop": (["tpu_vm.sh", "stop"], {"TPU_NAME": "pod", "ZONE": "us-west4-a"}),
  "slurm": (
    ["slurm.sh", "--dry-run", "--", "--config.batch_size=2048"],
    {"WORKDIR": "/shared/runs/a", "NODES": "4", "PARTITION": "gpu", "VENV": "/shared/venv"},
  ),
  "slurm_cpu": (["slurm.sh"], {"WORKDIR": "/shared/a", "GPUS_PER_NODE": "0", "ACCOUNT": "vision"}),
  "gke_jobset": (
    ["gke_jobset.sh", "--dry-run", "--", '--config.name="quoted"'],
    {"IMAGE": "eu.gcr.io/p/prn:tpu", "BUCKET": "runs", "TPU_TOPOLOGY": "4x8", "SLICES": "2", "NAME": "darknet53"},
  ),
  "xpk": (["xpk.sh"], {"CLUSTER": "c", "IMAGE": "eu.gcr.io/p/prn:tpu", "WORKDIR": "/runs/a", "ZONE": "us-west4-a"}),
  "docker_build": (["docker.sh"], {"JAX": "jax[tpu]", "IMAGE": "eu.gcr.io/p/prn:tpu"}),
  "docker_push": (["docker.sh", "push"], {"IMAGE": "eu.gcr.io/p/prn:tpu"}),
  "docker_train": (
    ["docker.sh", "train", "--", "--config.seed=3"],
    {"GPUS": "all", "RUNS": "/runs", "DATA": "/photos"},
  ),
}


def tool(name: str) -> str:
  """Path of a linter of the dev extras."""
  found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
  assert found, f"{name} is missing: pip install -e '.[dev]'"
  return found


def run_recipe(
  arguments: Sequence[str], settings: Mapping[str, str], path: str = "/usr/bin:/bin", home: str = "/nowhere"
) -> subprocess.CompletedProcess[str]:
  environ = {"PATH": path, "HOME": home, "TMPDIR": "/tmp", "RETRY_SEC": "0", **settings}
  return subprocess.run(
    ["bash", str(LAUNCH / arguments[0]), *arguments[1:]],
    env=environ, cwd=REPO, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip


def dry_run_text(name: str, path: str = "/usr/bin:/bin") -> str:
  """What a dry run prints, with this checkout and this user replaced."""
  arguments, settings = DRY_RUNS[name]
  options = [] if "--dry-run" in arguments else ["--dry-run"]
  done = run_recipe([arguments[0], *options, *arguments[1:]], settings, path)
  assert done.returncode == 0, done.stderr
  assert done.stderr == ""
  return done.stdout.replace(str(REPO), "/REPO").replace(f"--user {os.getuid()}:{os.getgid()}", "--user UID:GID")


def stand_ins(folder: Path, **bodies: str) -> str:
  """A PATH on which the cluster's programs are bash scripts; those without a body fail loudly."""
  folder.mkdir(exist_ok=True)
  for name in TOOLS:
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{bodies.get(name, 'echo unexpected: $0 >&2; exit 99')}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
  return f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"


# --- linters ---


def test_all_scripts_are_known() -> None:
  covered = {arguments[0] for arguments, _ in DRY_RUNS.values()} | {"common.sh", "worker.sh", "slurm_job.sh"}
  assert {script.name for script in SCRIPTS} == covered


def test_shellcheck() -> None:
  done = subprocess.run(
    [tool("shellcheck"), "-x", "--severity=style", *map(str, SCRIPTS)],
    cwd=REPO, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout


def test_hadolint() -> None:
  done = subprocess.run(
    [tool("hadolint"), "--no-color", "--failure-threshold", "info", str(LAUNCH / "Dockerfile")],
    capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip
  assert (done.returncode, done.stdout) == (0, ""), done


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.name != "common.sh"], ids=lambda s: s.name)
def test_scripts_are_strict_and_executable(script: Path) -> None:
  text = script.read_text()
  assert text.startswith("#!/usr/bin/env bash\n# ")
  assert "\nset -euo pipefail\n" in text
  assert os.access(script, os.X_OK)


# --- dry runs ---


@pytest.mark.parametrize("name", DRY_RUNS)
def test_dry_run_prints_what_it_would_do(name: str, tmp_path: Path) -> None:
  file = EXPECTED / f"{name}.txt"
  text = dry_run_text(name, stand_ins(tmp_path / "bin"))
  assert text == file.read_text(), "If the change is meant: python -m tests.launch.test_recipes"


def test_no_expected_text_is_left_over() -> None:
  assert {file.stem for file in EXPECTED.iterdir()} == set(DRY_RUNS)


@pytest.mark.parametrize(
  ("arguments", "settings", "message"),
  [
    (["tpu_vm.sh"], {}, "tpu_vm.sh: what to do? One of setup, train, logs, status, stop (--help)"),
    (["tpu_vm.sh", "train"], {}, "TPU_NAME is not set: the name of the TPU VM."),
    (["tpu_vm.sh", "fly"], {"TPU_NAME": "a", "ZONE": "b"}, "unknown action fly: setup, train, logs, status or stop"),
    (["tpu_vm.sh", "train"], {"TPU_NAME": "a", "ZONE": "b"}, "BUCKET is not set"),
    (["tpu_vm.sh", "logs"], {"TPU_NAME": "a", "ZONE": "b", "RUN_NAME": "a b"}, "RUN_NAME=a b: letters, digits"),
    (["slurm.sh"], {}, "WORKDIR is not set: a directory that all nodes share."),
    (["slurm.sh"], {"WORKDIR": "/a", "NODES": "two"}, "NODES=two: expected a whole number above 0"),
    (["slurm.sh", "--dryrun"], {}, "unknown option --dryrun; arguments of 'prn train' follow --"),
    (["gke_jobset.sh"], {"BUCKET": "b"}, "IMAGE is not set"),
    (["gke_jobset.sh"], {"IMAGE": "i", "BUCKET": "b", "NAME": "A_b"}, "NAME=A_b: lower-case letters"),
    (["gke_jobset.sh"], {"IMAGE": "i", "BUCKET": "b", "TPU_TOPOLOGY": "16"}, "TPU_TOPOLOGY=16: expected chips like"),
    (
      ["gke_jobset.sh"],
      {"IMAGE": "i", "BUCKET": "b", "TPU_TOPOLOGY": "3x3"},
      "TPU_TOPOLOGY=3x3 has 9 chips, not a multiple of CHIPS_PER_HOST=4",
    ),
    (["xpk.sh"], {"CLUSTER": "c"}, "IMAGE is not set"),
    (["docker.sh"], {"JAX": "torch"}, "JAX=torch: expected jax, jax[tpu] or jax[cuda12]"),
  ],
)
def test_bad_settings(arguments: list[str], settings: dict[str, str], message: str, tmp_path: Path) -> None:
  done = run_recipe(arguments, settings, stand_ins(tmp_path / "bin"))
  assert done.returncode == 2, done
  assert message in done.stderr


@pytest.mark.parametrize("script", ["tpu_vm.sh", "slurm.sh", "gke_jobset.sh", "xpk.sh", "docker.sh"])
def test_help_lists_all_settings(script: str) -> None:
  done = run_recipe([script, "--help"], {})
  assert done.returncode == 0
  names = re.findall(r"^([A-Z_]+)=\$\{\1:-", (LAUNCH / script).read_text(), re.MULTILINE)
  assert len(names) >= 5
  assert all(f"\n{name}=" in done.stdout for name in names)
  assert "set -euo" not in done.stdout


def test_quoted_words_can_be_typed() -> None:
  words = ["plain", "two words", "it's", 'a "b"', "$HOME", "", "line\nbreak", "a=b;c", "*", "~root"]
  script = f'source "{LAUNCH}/common.sh"; quoted "$@"'
  line = subprocess.run(["bash", "-c", script, "x", *words], capture_output=True, text=True, check=True).stdout
  back = subprocess.run(["bash", "-c", f'printf "%s\\0" {line}'], capture_output=True, text=True, check=True).stdout
  assert back.split("\0")[:-1] == words


# --- the JobSet ---


def jobset() -> dict[str, Any]:
  lines = dry_run_text("gke_jobset").splitlines()
  assert (lines[0], lines[-1]) == ("kubectl apply -f - <<'END'", "END")
  manifest: dict[str, Any] = yaml.safe_load("\n".join(lines[1:-1]))
  return manifest


def test_jobset_fits_its_schema() -> None:
  manifest = jobset()
  assert "${" not in json.dumps(manifest)
  assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
  assert set(manifest["spec"]) == {"failurePolicy", "replicatedJobs"}
  (group,) = manifest["spec"]["replicatedJobs"]
  job = group["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  # 4x8 chips, 4 on a host: 8 hosts in each of 2 slices. The name of a pod's host must stay below 63 characters.
  assert (group["replicas"], job["completions"], job["parallelism"], job["completionMode"]) == (2, 8, 8, "Indexed")
  assert len(f"{'x' * 40}-{group['name']}-10-1000-abcde") <= 63
  assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
  assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": 4}
  assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x8"
  assert all(
    isinstance(value, str) for value in (*pod["nodeSelector"].values(), *[e["value"] for e in container["env"]])
  )
  assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
  assert pod["terminationGracePeriodSeconds"] >= 120  # time to save
  assert container["args"] == [
    "prn", "train", "--config=imagenet_darknet53", "--workdir=/runs/darknet53", '--config.name="quoted"'
  ]  # fmt: skip


def test_jobset_ends_where_another_start_would_not_help() -> None:
  spec = jobset()["spec"]
  job = spec["replicatedJobs"][0]["template"]["spec"]
  (rule,) = job["podFailurePolicy"]["rules"]
  wanted = [exit_codes.DIVERGED, exit_codes.BAD_INPUT, exit_codes.INTERNAL, exit_codes.NO_START]
  assert rule["onExitCodes"]["values"] == wanted
  assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
  assert spec["failurePolicy"]["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
  assert not set(exit_codes.RUN_AGAIN) & set(rule["onExitCodes"]["values"])


def test_jobset_is_applied(tmp_path: Path) -> None:
  path = stand_ins(tmp_path / "bin", kubectl=f'echo "$@"; cat > {tmp_path}/applied')
  done = run_recipe(["gke_jobset.sh", "--", '--config.name="quoted"'], DRY_RUNS["gke_jobset"][1], path)
  assert done.returncode == 0, done
  assert done.stdout.startswith("apply -f -\nLogs of the first host: kubectl -n default logs -f -l jobset.sigs")
  assert yaml.safe_load((tmp_path / "applied").read_text()) == jobset()


# --- Slurm ---


@pytest.mark.parametrize(
  ("code", "restarts", "requeued", "said"),
  [
    (0, 0, False, "slurm_job: done"),
    (75, 0, True, "exit code 75, requeue 1 of 3"),
    (76, 2, True, "exit code 76, requeue 3 of 3"),
    (76, 3, False, "exit code 76 after 3 restarts, giving up"),
    (137, 0, True, "exit code 137, requeue 1 of 3"),
    (2, 0, False, "exit code 2, another start would not help"),
  ],
)
def test_slurm_job_requeues_where_it_helps(code: int, restarts: int, requeued: bool, said: str, tmp_path: Path) -> None:
  path = stand_ins(tmp_path / "bin", srun=f'echo "srun $*"; exit {code}', scontrol='echo "scontrol $*"')
  settings = {
    "PRN_ROOT": "/repo", "PRN_MAX_RESTARTS": "3", "SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": str(restarts),
  }  # fmt: skip
  done = run_recipe(["slurm_job.sh", "prn", "train", "--config=a b"], settings, path)
  assert done.returncode == code
  assert "srun --kill-on-bad-exit=0 --wait=180 --label python3 /repo/launch/supervise.py -- prn train" in done.stdout
  assert ("scontrol requeue 4711" in done.stdout) == requeued
  assert said in done.stdout + done.stderr


# --- TPU VM ---


@pytest.fixture
def vm(tmp_path: Path) -> tuple[str, Path]:
  """A PATH whose gcloud runs --command here, and the home directory that it finds there."""
  home = tmp_path / "home"
  (home / "prn_jax").mkdir(parents=True)
  (home / "prn_jax" / "launch").symlink_to(LAUNCH)
  (home / "prn_jax" / ".venv" / "bin").mkdir(parents=True)
  gcloud = 'for word in "$@"; do case "$word" in --command=*) exec bash -c "${word#--command=}";; esac; done'
  path = stand_ins(tmp_path / "bin", gcloud=gcloud)
  prn = home / "prn_jax" / ".venv" / "bin" / "prn"
  prn.write_text(
    "#!/usr/bin/env bash\necho \"prn $*\"; trap 'echo saving; exit 75' TERM\nfor i in $(seq 600); do sleep 0.1; done\n"
  )
  prn.chmod(0o755)
  return path, home


def wait_for(file: Path, text: str) -> str:
  deadline = time.monotonic() + 20
  while time.monotonic() < deadline and not (file.exists() and text in file.read_text()):
    time.sleep(0.05)
  return file.read_text()


def test_tpu_vm_trains_stops_and_tells(vm: tuple[str, Path]) -> None:
  path, home = vm
  settings = {"TPU_NAME": "pod", "ZONE": "z", "BUCKET": "b", "RUN_NAME": "a1"}
  arguments = ["tpu_vm.sh", "train", "--", "--config.data=imagefolder:/my data"]
  done = run_recipe(arguments, settings, path, str(home))
  assert done.returncode == 0, done
  assert "a1 started, log in" in done.stdout
  log = wait_for(home / "logs" / "a1.log", "prn train")
  assert f"prn train --config=imagenet_darknet53 --workdir={home}/runs/a1 --config.data=imagefolder:/my data" in log

  again = run_recipe(arguments, settings, path, str(home))
  assert again.returncode == 1  # three tries of gcloud
  assert "a1 already runs here" in again.stderr

  assert "a1 runs (pid" in run_recipe(["tpu_vm.sh", "status"], settings, path, str(home)).stdout
  stop = run_recipe(["tpu_vm.sh", "stop"], settings, path, str(home))
  assert "asked a1 to save and end" in stop.stdout
  assert wait_for(home / "logs" / "a1.exit", "\n") == "75\n"
  status = run_recipe(["tpu_vm.sh", "status"], settings, path, str(home)).stdout
  assert "a1 ended with exit code 75" in status
  assert "supervise: ended with exit code 75" in status
  assert "does not run here" in run_recipe(["tpu_vm.sh", "stop"], settings, path, str(home)).stdout


def test_ssh_is_tried_again(tmp_path: Path) -> None:
  count = tmp_path / "count"
  path = stand_ins(tmp_path / "bin", gcloud=f"echo x >> {count}; (($(wc -l < {count}) == 3))")
  done = run_recipe(["tpu_vm.sh", "status"], {"TPU_NAME": "pod", "ZONE": "z"}, path)
  assert done.returncode == 0, done
  assert done.stderr.splitlines() == [f"tpu_vm.sh: try {n} of 3 failed: gcloud" for n in (1, 2)]


# --- the image ---


def test_image_gets_what_it_needs_and_no_more() -> None:
  lines = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
  assert lines[1] == "*"
  kept = {line[1:] for line in lines if line.startswith("!")}
  assert kept == {
    "pyproject.toml",
    "requirements.txt",
    "README.md",
    "LICENSE",
    "prn_jax",
    "data_pipelines",
    "configs",
    "launch",
  }
  assert all((REPO / name).exists() for name in kept)


def test_image_runs_as_a_plain_user_under_the_supervisor() -> None:
  lines = (LAUNCH / "Dockerfile").read_text().splitlines()
  assert "USER 1000" in lines
  assert lines.index("USER 1000") > max(i for i, line in enumerate(lines) if line.startswith(("RUN", "COPY")))
  assert 'ENTRYPOINT ["python3", "/opt/prn_jax/launch/supervise.py", "--"]' in lines
  pins = re.search(r"jax(>=\S+)", (REPO / "requirements.txt").read_text())
  assert pins
  assert f'"${{JAX}}{pins.group(1)}"' in "\n".join(lines)
  assert f"jax[tpu]{pins.group(1)}" in (LAUNCH / "tpu_vm.sh").read_text()


if __name__ == "__main__":
  EXPECTED.mkdir(exist_ok=True)
  for _name in DRY_RUNS:
    (EXPECTED / f"{_name}.txt").write_text(dry_run_text(_name))
