import pytest

pytest.register_assert_rewrite("tests.lab")  # its asserts say what they saw, as those of tests do
