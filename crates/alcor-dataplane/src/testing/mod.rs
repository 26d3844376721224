//! Goal states and frames for tests, all made from a seed: a seed that fails is a test case with a name.
//!
//! For dev-dependencies (feature `testing`). Whoever compares a data plane with the model runs
//! [`Scenario::from_seed`] through both.

pub mod floating;
pub mod frames;
pub mod gateway;
mod gateways;
mod learning;
pub mod rng;
mod routing;
mod security;
pub mod state;
pub mod wire;

use std::collections::BTreeMap;

use alcor_model::{Id, Port};
use rng::Rng;

use crate::{Dataplane, Ingress, Model, Row, RowChange, Uplinks, Verdict};

/// How many frames [`Scenario::from_seed`] makes.
pub const FRAMES: usize = 64;

/// A goal state, the devices, and frames to send through it one after another.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it was made from.
    pub seed: u64,
    /// Rows in an order in which they can be applied; a data plane accepts all of them.
    pub rows: Vec<Row>,
    /// Device of each port that has one. A port here may be without a row.
    pub devices: BTreeMap<Id<Port>, String>,
    /// External networks of the host.
    pub uplinks: Uplinks,
    /// Frames. An ingress port may be without a device, or unknown.
    pub frames: Vec<(Ingress, Vec<u8>)>,
}

/// A region whose networks routers connect, and what chance there is left.
fn routed(seed: u64) -> (Rng, state::State) {
    let mut rng = Rng::new(seed);
    let mut state = state::generate(&mut rng);
    security::add(&mut rng, &mut state);
    learning::add(&mut rng, &mut state);
    routing::add(&mut rng, &mut state);
    (rng, state)
}

impl Scenario {
    /// The scenario of this seed.
    pub fn from_seed(seed: u64) -> Self {
        Self::with_frames(seed, FRAMES)
    }

    /// The scenario of this seed with another number of frames; the first ones are the same.
    pub fn with_frames(seed: u64, count: usize) -> Self {
        let mut rng = Rng::new(seed);
        let state = state::generate(&mut rng);
        let frames = (0..count).map(|_| frames::generate(&mut rng, &state)).collect();
        Self {
            seed,
            rows: state.rows,
            devices: state.devices,
            uplinks: Uplinks::default(),
            frames,
        }
    }

    /// A scenario in which ports are under security groups, and many frames answer earlier ones.
    pub fn secured(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut state = state::generate(&mut rng);
        security::add(&mut rng, &mut state);
        Self::of(seed, &mut rng, state)
    }

    /// The same, where most networks are on demand, ports have left, and packets were passed on.
    pub fn learning(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut state = state::generate(&mut rng);
        security::add(&mut rng, &mut state);
        learning::add(&mut rng, &mut state);
        let mut scenario = Self::of(seed, &mut rng, state);
        learning::pass_on(&mut rng, &scenario.rows, &mut scenario.frames);
        scenario
    }

    /// A scenario of [`Self::learning`] with routers between networks.
    pub fn routed(seed: u64) -> Self {
        let (rng, state) = routed(seed);
        Self::crossing(seed, rng, state)
    }

    /// A scenario of [`Self::routed`] with gateways, between networks' hosts and to the outside.
    pub fn with_gateways(seed: u64) -> Self {
        let (mut rng, mut state) = routed(seed);
        gateways::add(&mut rng, &mut state);
        Self::crossing(seed, rng, state)
    }

    /// A scenario of [`Self::with_gateways`] whose host translates floating IPs itself.
    pub fn floating(seed: u64) -> Self {
        let (mut rng, mut state) = routed(seed);
        gateways::add(&mut rng, &mut state);
        floating::add(&mut rng, &mut state);
        let mut scenario = Self::of(seed, &mut rng, state.clone());
        scenario.uplinks = floating::uplinks();
        for frame in &mut scenario.frames {
            if rng.chance(80) {
                *frame = floating::frame(&mut rng, &state).unwrap_or_else(|| frame.clone());
            }
        }
        scenario
    }

    /// What comes back on a packet that went out, or came in from outside.
    pub fn floating_answer(&self, rng: &mut Rng, verdict: &Verdict) -> Option<(Ingress, Vec<u8>)> {
        floating::answer(rng, &self.rows, verdict)
    }

    /// A random change of the scenario's floating IPs.
    pub fn floating_change(&self, rng: &mut Rng) -> Option<RowChange> {
        floating::change(rng, &self.rows)
    }

    /// Frames between networks among the others, some of which were passed on.
    fn crossing(seed: u64, mut rng: Rng, state: state::State) -> Self {
        let mut scenario = Self::of(seed, &mut rng, state.clone());
        routing::cross(&mut rng, &state, &mut scenario.frames);
        learning::pass_on(&mut rng, &scenario.rows, &mut scenario.frames);
        scenario
    }

    fn of(seed: u64, rng: &mut Rng, state: state::State) -> Self {
        let mut frames: Vec<(Ingress, Vec<u8>)> = Vec::new();
        for _ in 0..FRAMES {
            let before = frames.get(rng.below(frames.len())).cloned();
            let frame = match rng.below(10) {
                0..3 => before.and_then(|before| security::answer(rng, &state, &before)),
                3..5 => before,
                _ => None,
            };
            frames.push(frame.unwrap_or_else(|| frames::generate(rng, &state)));
        }
        Self {
            seed,
            rows: state.rows,
            devices: state.devices,
            uplinks: Uplinks::default(),
            frames,
        }
    }

    /// A random change of the scenario's security rows, or of a port's label.
    pub fn security_change(&self, rng: &mut Rng) -> Option<RowChange> {
        security::change(rng, &self.rows)
    }

    /// A random change of what the scenario's rows say about gateways.
    pub fn gateway_change(&self, rng: &mut Rng) -> Option<RowChange> {
        gateways::change(rng, &self.rows)
    }

    /// The rows as changes.
    pub fn changes(&self) -> Vec<RowChange> {
        self.rows.iter().cloned().map(RowChange::Put).collect()
    }

    /// A model without rows, with the way to external networks.
    pub fn empty_model(&self) -> Model {
        let mut model = Model::default().with_uplinks(self.uplinks.clone());
        for ((device, _), mtu) in floating::EXTERNAL_DEVICES
            .into_iter()
            .zip(floating::EXTERNAL_MTUS)
        {
            model.set_uplink_mtu(device, mtu);
        }
        model
    }

    /// A model with the rows and devices in force.
    pub fn model(&self) -> Model {
        let mut model = self.empty_model();
        let refused = model
            .apply(&self.changes())
            .into_iter()
            .filter(Result::is_err)
            .count();
        debug_assert_eq!(refused, 0, "seed {}: the rows of a scenario are legal", self.seed);
        for (port, device) in &self.devices {
            let attached = model.attach(*port, device);
            debug_assert!(attached.is_ok(), "seed {}: {attached:?}", self.seed);
        }
        model
    }
}
