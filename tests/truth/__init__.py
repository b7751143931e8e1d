"""The mathematics, proved against oracles, and the mutants that these proofs must kill."""
