"""What a type checker infers of a runtime and the recorders that it creates."""

from __future__ import annotations

import functools
from typing import Any, assert_type

from anyio.from_thread import BlockingPortal

from mvx.common.metrics import MetricsRecorder, MetricsRuntime, MetricsRuntimeState, OverflowPolicy


class Publishing(MetricsRecorder):
    """A custom recorder with a keyword of its own."""

    def __init__(self, entity_id: str, *, publisher: str, **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.publisher = publisher


def publishing(entity_id: str) -> Publishing:
    """A factory."""
    return Publishing(entity_id, publisher="p")


def make() -> None:
    """The constructor's keywords."""
    runtime = MetricsRuntime(
        namespace="shop",
        backend="trio",
        backend_options={"restrict_keyboard_interrupt_to_checkpoints": True},
        default_recorder_queue_max_size=7,
        default_recorder_queue_overflow_policy=OverflowPolicy.DROP_OLDEST,
        startup_timeout=None,
    )
    assert_type(runtime, MetricsRuntime)
    assert_type(runtime.namespace, str)
    assert_type(runtime.backend, str)
    assert_type(runtime.get_status(), MetricsRuntimeState)
    assert_type(runtime.portal, BlockingPortal)
    MetricsRuntime()  # type: ignore[call-arg] # because a runtime needs a namespace
    MetricsRuntime(namespace="shop", default_recorder_queue_overflow_policy="DROP")  # type: ignore[arg-type] # because a policy is no str


def create(runtime: MetricsRuntime) -> None:
    """The factory decides what create_recorder returns."""
    assert_type(runtime.create_recorder("x"), MetricsRecorder)
    assert_type(runtime.create_recorder("x", queue_max_size=7, linger=0.0), MetricsRecorder)
    assert_type(runtime.create_recorder("x", factory=MetricsRecorder), MetricsRecorder)
    assert_type(runtime.create_recorder("x", factory=Publishing, publisher="p"), Publishing)
    assert_type(runtime.create_recorder("x", factory=publishing), Publishing)
    assert_type(runtime.create_recorder("x", factory=functools.partial(Publishing, publisher="p")), Publishing)
    assert_type(runtime.create_recorder("x", factory=lambda name: Publishing(name, publisher="p")), Publishing)
    assert_type(runtime.create_recorder("x", factory=Publishing, publisher="p").publisher, str)
    runtime.create_recorder("x", factory=dict)  # type: ignore[type-var] # because a factory returns recorders
    runtime.create_recorder("x", queue_max_size="7")  # type: ignore[call-overload] # because a size is an int
    runtime.create_recorder(7)  # type: ignore[call-overload] # because an id is a str


async def acreate(runtime: MetricsRuntime) -> None:
    """The async forms alike."""
    assert_type(await runtime.acreate_recorder("x"), MetricsRecorder)
    assert_type(await runtime.acreate_recorder("x", factory=Publishing, publisher="p"), Publishing)
    assert_type(await runtime.acreate_recorder("x", factory=publishing), Publishing)
    await runtime.astart()
    await runtime.ashutdown()


def find(runtime: MetricsRuntime) -> None:
    """The registry's methods."""
    assert_type(runtime.get_recorder("x"), MetricsRecorder)
    assert_type(runtime.try_get_recorder("x"), MetricsRecorder | None)
    assert_type(runtime.list_recorder_ids(), tuple[str, ...])
    assert_type(runtime.stop_and_remove_recorder("x"), MetricsRecorder)
    runtime.stop_recorder("x")


class Special(MetricsRuntime):
    """A subclass."""


async def blocks(runtime: Special) -> None:
    """A block gives the runtime itself, of its own class."""
    with runtime as entered:
        assert_type(entered, Special)
    async with runtime as entered_too:
        assert_type(entered_too, Special)
