//! The seam’s contract.
