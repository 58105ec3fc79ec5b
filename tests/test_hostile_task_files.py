"""Every task without training: files, rows, answers, damage (`check_task`)."""

import pytest
import task_samples as samples
from checks import check_task


@pytest.mark.parametrize("name", samples.TASK_FILES)
def test_each_task(name, tmp_path):
    check_task(name, samples.TASK_FILES[name], tmp_path)
