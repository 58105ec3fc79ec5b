"""Means and speed between two logged rows."""

import numpy as np

from albert_tf2.training.meters import Interval, Timer


def test_means_do_not_depend_on_how_steps_were_grouped():
    rows = np.random.default_rng(0).random([7, 2], np.float32)
    found = []
    for sizes in ([7], [1, 2, 4], [1] * 7):
        interval, first = Interval(["loss", "norm"]), 0
        for size in sizes:
            interval.add(rows[first : first + size])
            first += size
        found.append(interval.take())
        assert interval.take()[1] == {"loss": 0, "norm": 0}
    assert found[0] == found[1] == found[2]
    means, counts = found[0]
    assert counts == {"loss": 7, "norm": 7}
    np.testing.assert_allclose(list(means.values()), rows.mean(0), rtol=1e-6)


def test_what_is_not_finite_is_left_out():
    interval = Interval(["loss", "norm"])
    interval.add(np.array([[1, np.inf], [2, 4], [6, np.nan]], np.float32))
    assert interval.take() == (
        {"loss": 3.0, "norm": 4.0},
        {"loss": 3, "norm": 1},
    )
    interval.add(np.array([[1, np.inf]], np.float32))
    means, counts = interval.take()
    assert means["loss"] == 1.0 and np.isnan(means["norm"])
    assert counts["norm"] == 0


def test_the_timer_leaves_out_what_was_no_step(monkeypatch):
    clock = iter([0.0, 20.0, 22.0])
    monkeypatch.setattr("time.perf_counter", clock.__next__)
    timer = Timer()
    assert timer.speed() is None
    timer.start()
    timer.stop(0)  # it was compiled
    assert timer.speed() is None
    timer.start()
    timer.stop(8)
    assert timer.speed() == 4.0
    assert timer.speed() is None
