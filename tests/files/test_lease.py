"""One owner at a time of an object: who is refused, who takes over, and what a store that fails changes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prn_jax.files.lease import HeldError, Lease, Owner
from prn_jax.files.places import bucket_path, to_path
from tests.files.test_places import impatient  # noqa: F401  (a fixture)
from tests.object_store import Faults, ObjectStore

NAME = "run/.run.lock"
FILE = bucket_path(to_path(f"gs://bucket/{NAME}"))
ELSEWHERE = Owner("abc", "tpu-vm-0", 4711, 0.0, "another boot", "pid:[1]", "99")


def new(said: list[str] | None = None, lost: list[Owner] | None = None, dead_sec: float = 60.0) -> Lease:
  """A lease whose owner gives a sign of life five times a second."""
  return Lease(
    FILE, (lost if lost is not None else []).append, (said if said is not None else []).append, 0.2, dead_sec
  )


def put(store: ObjectStore, owner: Owner, age_sec: float) -> None:
  store.put(NAME, json.dumps(dataclasses.asdict(owner)).encode(), age_sec)


def test_the_second_is_refused_and_the_first_goes_on(store: ObjectStore) -> None:
  lost: list[Owner] = []
  said: list[str] = []
  first = new(lost=lost)
  first.acquire()
  with pytest.raises(HeldError) as error:
    new(said).acquire()
  assert error.value.owner == Owner.read(store.read(NAME)) == first._owner
  assert said[0].startswith(f"'gs://bucket/run' is held by {first._owner}, last heard of ")
  assert said[0].endswith(" s ago; waiting for a sign of life, for at most 60 s")
  first.release()
  first.release()
  assert (NAME in store.objects, lost) == (False, [])


def test_one_that_was_given_back_is_free_at_once(store: ObjectStore) -> None:
  for _ in range(2):
    said: list[str] = []
    own = new(said)
    own.acquire()
    assert Owner.read(store.read(NAME)) == own._owner
    own.release()
    assert said == []


def test_a_dead_owner_of_another_machine_is_waited_for(store: ObjectStore) -> None:
  put(store, ELSEWHERE, age_sec=58)
  said, began = list[str](), time.monotonic()
  own = new(said)
  own.acquire()
  assert 0.5 < time.monotonic() - began < 10
  assert said[0].startswith("'gs://bucket/run' is held by process 4711 on 'tpu-vm-0', last heard of 5")
  assert said[1] == "process 4711 on 'tpu-vm-0' has ended or is lost; taking over 'gs://bucket/run'"
  own.release()


@pytest.mark.parametrize("data", [b"", b"\xff{", b'{"id": 5}', json.dumps(dataclasses.asdict(ELSEWHERE)).encode()])
def test_one_that_has_been_dead_for_long_is_not_waited_for(store: ObjectStore, data: bytes) -> None:
  store.put(NAME, data, age_sec=61)
  said: list[str] = []
  own = new(said)
  own.acquire()
  assert [line.partition(" has ended")[0] for line in said] == [str(Owner.read(data))]
  assert Owner.read(store.read(NAME)) == own._owner
  own.release()


def test_of_many_that_wait_for_a_dead_owner_one_has_it(store: ObjectStore) -> None:
  put(store, ELSEWHERE, age_sec=59)
  leases, refused = [new() for _ in range(4)], list[Owner]()

  def take(own: Lease) -> None:
    try:
      own.acquire()
    except HeldError as error:
      refused.append(error.owner)

  threads = [threading.Thread(target=take, args=(own,)) for own in leases]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  winner = Owner.read(store.read(NAME))
  assert refused == [winner] * 3
  for own in leases:
    own.release()
  assert NAME not in store.objects


def test_an_owner_that_slept_learns_who_has_taken_over(store: ObjectStore) -> None:
  lost: list[Owner] = []
  own = new(lost=lost)
  own.acquire()
  put(store, ELSEWHERE, age_sec=0)
  own.renew()
  assert lost == [ELSEWHERE]
  own.renew()  # told once
  own.release()
  assert lost == [ELSEWHERE]
  assert Owner.read(store.read(NAME)) == ELSEWHERE, "what is another's stays"


def test_one_that_somebody_deleted_comes_back(store: ObjectStore) -> None:
  own = new()
  own.acquire()
  del store.objects[NAME]
  own.renew()
  assert Owner.read(store.read(NAME)) == own._owner
  own.release()
  assert NAME not in store.objects


@pytest.mark.usefixtures("impatient")
def test_what_was_done_but_refused_is_known_as_own(store: ObjectStore) -> None:
  lost: list[Owner] = []
  store.faults = Faults(done_but_refused=0.3, dropped=0.1)
  for _ in range(5):
    own = new(lost=lost)
    own.acquire()
    for _ in range(3):
      own.renew()
    own.release()
  assert store.num_faults > 5
  assert (lost, NAME in store.objects) == ([], False)


ENDS = """
import dataclasses, json
from prn_jax.files.lease import Owner
print(json.dumps(dataclasses.asdict(Owner.this())), flush=True)
input()
"""


@pytest.mark.skipif(not Path("/proc/self/ns/pid").is_symlink(), reason="only Linux tells when a process began")
def test_a_killed_process_of_this_machine_is_not_waited_for(store: ObjectStore) -> None:
  process = subprocess.Popen([sys.executable, "-c", ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  with process:
    assert process.stdout is not None
    owner = Owner.read(process.stdout.readline().encode())
    assert owner.pid == process.pid
    assert not owner.is_gone
    assert not dataclasses.replace(owner, began="1", boot="another").is_gone
    process.kill()
    while not owner.is_gone:  # it is a zombie then: nobody has asked for its exit code
      time.sleep(0.01)
  put(store, owner, age_sec=0)
  own, began = new(), time.monotonic()
  own.acquire()
  assert time.monotonic() - began < 5
  own.release()
