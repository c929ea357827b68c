//! What came of a run, with what was asked for; `text` and `json` say it to people and programs.

use nonforker_load::Measured;

use super::flags::BenchArgs;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) args: &'a BenchArgs,
    pub(crate) measured: Measured,
}
