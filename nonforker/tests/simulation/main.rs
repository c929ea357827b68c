//! What is measured of the simulator. What is tested with it is in `tests/simulated`.

mod speed;
