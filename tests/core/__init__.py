"""Tests that mirror the core."""
