"""The same faults as in the other tests, many more times: `make torture`. Each also has a short version for CI."""
