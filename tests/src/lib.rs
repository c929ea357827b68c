//! Nothing but a place for `tests`: those of the library over real sockets and in the simulation, and what is
//! measured by hand.
//!
//! They are a package so that they are not optimised, which takes ten times as long to build. The library is, and
//! in it they spend most of their time.
