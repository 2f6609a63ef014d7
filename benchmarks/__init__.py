"""Measurements that print ratios side by side; run by `make bench`, never by the tests."""
