//! What a simulation is of: scenario files, and the random numbers that a seed stands for. The simulator's three levels
//! (discrete events, real sockets, namespaces with real packets) read the same files.
//!
//! Not here: anything that runs. So who only reads a scenario does not wait for the simulator to be compiled.

pub mod rng;
pub mod scenario;

pub use rng::Rng;
pub use scenario::{Scenario, ScenarioError};
