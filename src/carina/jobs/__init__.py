"""Jobs: the table, one job executed, and the worker that says when.

`queue` has every change of a job, `listing` looks at them, `intake` makes jobs of what arrived, `execute` is one
attempt in its own process, `worker` starts those.
"""
