//! Nothing but a place for `tests`: those of the library over real sockets, and what is measured by hand.
//!
//! They are a package so that they are not optimised: that takes ten times as long to build, and they wait for
//! sockets most of the time. The library itself, and its tests that only compute, are.
