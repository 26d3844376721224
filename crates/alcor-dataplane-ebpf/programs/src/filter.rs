//! The filter of one port: what it remembers, and what its rules say. The decisions about connections are
//! `alcor_dataplane_abi::connection`'s; here are the maps that they read and write.

use alcor_dataplane_abi::{
    DropReason,
    connection::{self, Connection, Direction, FRAGMENT, Segment, Step},
    flow::{Identity, PROTO_ICMPV6, PROTO_TCP, Sides, Upper, identify, point_of},
    layout::*,
};
use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_ns, maps::lpm_trie::Key};

use crate::{
    end::End,
    flow::{self, FIRST, Flow, LATER, Quoted, TCP_LEN},
    maps::{ANSWERED, BITS, LABELS, PENDING, PREFIXES, SCRATCH, SERVICES},
    skb::Skb,
    trace,
};

const INTERNAL: u32 = DropReason::Internal as u32;

/// One packet at one port, and where its judgement works.
pub struct Scratch {
    flow: Flow,
    /// True once `flow` is this packet's.
    is_read: bool,
    /// The frame's EtherType.
    ethertype: u16,
    /// True when the IP header lies in [`Packet::bytes`] already.
    has_header: bool,
    direction: Direction,
    port: u32,
    filter: FilterValue,
    /// Label of the other side.
    label: u16,
    /// Nobody knows that label: a refusal is not kept.
    is_guess: bool,
    now: u64,
    /// The packet's upper layer; of a later fragment that of the first one.
    upper: Upper,
    key: ConnectionKey,
    /// Where the connection of the key is: a `PLACE_*`.
    place: u32,
    /// What to keep of it when the packet passes.
    allowed: Connection,
    /// What to keep when it does not, if anything.
    denied: Connection,
    keeps_denied: bool,
    question: Question,
    quote: Quoted,
}

/// [`Scratch::place`]: nowhere.
const PLACE_NONE: u32 = 0;
/// [`Scratch::place`]: in `PENDING`.
const PLACE_PENDING: u32 = 1;
/// [`Scratch::place`]: in `ANSWERED`.
const PLACE_ANSWERED: u32 = 2;

/// What the rules are asked.
struct Question {
    table: u32,
    other: [u8; 16],
    label: u16,
    point: u16,
    protocol: u8,
}

/// The filters that one packet meets.
#[derive(Clone, Copy)]
pub struct Filters {
    skb: Skb,
    scratch: *mut Scratch,
}

impl Filters {
    #[inline(always)]
    pub fn new(skb: Skb, ethertype: u16, has_header: bool) -> Option<Self> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: the entry is this CPU's own; no other packet is in these programs on it until this one has left.
        unsafe {
            (*scratch).is_read = false;
            (*scratch).ethertype = ethertype;
            (*scratch).has_header = has_header;
        }
        Some(Self { skb, scratch })
    }

    /// Whether the packet passes the filter of a port.
    #[inline(always)]
    pub fn pass(
        self,
        direction: Direction,
        port: u32,
        filter: &FilterValue,
        label: u16,
        is_guess: bool,
    ) -> Result<(), End> {
        // SAFETY: as in `new`.
        let scratch = unsafe { &mut *self.scratch };
        if !scratch.is_read {
            denied(alcor_read(self.skb.0))?;
            scratch.is_read = true;
        }
        scratch.direction = direction;
        scratch.port = port;
        scratch.filter = *filter;
        scratch.label = label;
        scratch.is_guess = is_guess;
        denied(alcor_judge(self.skb.0))
    }
}

/// A reason as the end of the packet's way; 0 is none.
#[inline(always)]
const fn denied(reason: u32) -> Result<(), End> {
    if reason == 0 {
        Ok(())
    } else {
        Err(End::drop_code(reason))
    }
}

/// Nanoseconds since the machine started; of a traced packet what it brings.
#[inline(always)]
pub fn now(skb: Skb) -> u64 {
    if trace() {
        return skb.tstamp();
    }
    // SAFETY: the helper takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}

// The functions below are global: the verifier looks at each of them once, whatever the paths that lead there.
// So they take nothing but the packet, and find the rest in the scratch.

/// The scratch of this CPU.
#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: as in `Filters::new`; each global function takes it once.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Reads the packet: 0, or a `DropReason`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_read(skb: *mut __sk_buff) -> u32 {
    match scratch() {
        Some(work) => flow::read(Skb(skb), work.ethertype, work.has_header, &mut work.flow),
        None => INTERNAL,
    }
}

/// Whether the packet passes: 0, or a `DropReason`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_judge(skb: *mut __sk_buff) -> u32 {
    let Some(work) = scratch() else { return INTERNAL };
    work.now = now(Skb(skb));
    work.upper = work.flow.upper;
    if work.flow.part == LATER && !begun(work) {
        return DropReason::UnknownFragment as u32;
    }
    let is_discovery = work.upper.protocol == PROTO_ICMPV6 && matches!(work.upper.point >> 8, 133..=137);
    if is_discovery && work.flow.family == IPV6 {
        return DropReason::SpoofedNd as u32;
    }
    let reason = decide(skb, work);
    if reason == 0 && work.flow.part == FIRST {
        expect(work);
    }
    reason
}

/// What connection tracking says of the packet: an `ANSWER_*`. What to keep is in the scratch then.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_track(skb: *mut __sk_buff) -> u32 {
    match scratch() {
        Some(work) => track(Skb(skb), work),
        None => ANSWER_DENY,
    }
}

/// As [`alcor_track`], of an ICMP error.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_related(skb: *mut __sk_buff) -> u32 {
    match scratch() {
        Some(work) => related(Skb(skb), work),
        None => ANSWER_DENY,
    }
}

/// Asks the rules: 1 is yes.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_allows() -> u32 {
    scratch().is_some_and(|work| allows(work)) as u32
}

/// Keeps the connection that `alcor_track` told, as the packet passes (1) or does not (0); 0 when it cannot be kept.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn alcor_keep(passes: u32) -> u32 {
    scratch().is_some_and(|work| keep(work, passes != 0)) as u32
}

/// [`alcor_track`]: it belongs to no connection; the rules decide about the packet.
const ANSWER_SINGLE: u32 = 0;
/// [`alcor_track`]: the rules decide about the connection.
const ANSWER_ASK: u32 = 1;
/// [`alcor_track`]: it passes.
const ANSWER_PASS: u32 = 2;
/// [`alcor_track`]: it does not pass.
const ANSWER_DENY: u32 = 3;
/// [`alcor_track`]: it passes, and its connection is kept already.
const ANSWER_KEPT: u32 = 4;

#[inline(always)]
fn decide(skb: *mut __sk_buff, work: &mut Scratch) -> u32 {
    let answer = if work.filter.flags & FILTER_STATEFUL != 0 {
        alcor_track(skb)
    } else {
        ANSWER_SINGLE
    };
    if answer == ANSWER_KEPT {
        return 0;
    }
    if answer == ANSWER_SINGLE {
        work.question.table = rule_table(work.direction, work.flow.family);
        work.question.other = match work.direction {
            Direction::Ingress => work.flow.source,
            Direction::Egress => work.flow.destination,
        };
        work.question.label = work.label;
        work.question.protocol = work.upper.protocol;
        work.question.point = work.upper.point;
    }
    let passes = match answer {
        ANSWER_PASS => 1,
        ANSWER_DENY => 0,
        _ => alcor_allows(),
    };
    if passes == 0 && work.is_guess {
        return refused(work.direction);
    }
    let kept = answer == ANSWER_SINGLE || alcor_keep(passes) != 0;
    if passes == 0 {
        refused(work.direction)
    } else if !kept {
        // No entry can be had for the moment: the sender tries again.
        DropReason::ConnectionLimit as u32
    } else {
        0
    }
}

#[inline(always)]
fn fragment_key(work: &mut Scratch) {
    work.key.own = work.flow.source;
    work.key.other = work.flow.destination;
    work.key.local = (work.flow.id >> 16) as u16;
    work.key.remote = work.flow.id as u16;
    work.key.protocol = work.flow.protocol;
    work.key.asks = 0;
    work.key.family = work.flow.family as u8;
    work.key.kind = KIND_FRAGMENT;
}

/// Finds the upper layer of the packet that a later fragment belongs to; false when nobody waits for it.
#[inline(always)]
fn begun(work: &mut Scratch) -> bool {
    fragment_key(work);
    let Some(pending) = PENDING.get(work.port) else {
        return false;
    };
    let Some(begun) = pending.get_ptr(&work.key) else {
        return false;
    };
    // SAFETY: values of fragments' keys are fragments' values, of the same size; see `value_at` for reuse.
    let begun = unsafe { &*begun.cast::<FragmentValue>() };
    let overlaps = begun.protocol == PROTO_TCP && work.flow.offset < TCP_LEN;
    if begun.expires_ns <= work.now || overlaps {
        return false;
    }
    // A later fragment opens and closes nothing.
    work.upper = Upper {
        source: begun.source,
        point: begun.point,
        protocol: begun.protocol,
        tcp: 0,
    };
    true
}

/// Lets later fragments follow. Without room the packet is one whose later fragments are dropped.
#[inline(always)]
fn expect(work: &mut Scratch) {
    fragment_key(work);
    let Some(pending) = PENDING.get(work.port) else {
        return;
    };
    let value = FragmentValue {
        expires_ns: work.now.saturating_add(FRAGMENT),
        source: work.upper.source,
        point: work.upper.point,
        protocol: work.upper.protocol,
        pad: [0; 3],
    };
    // SAFETY: both types are 16 bytes of integers, without padding.
    let value: Connection = unsafe { core::mem::transmute(value) };
    let _ = pending.insert(&work.key, &value, 0);
}

#[inline(always)]
fn refused(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => DropReason::IngressDenied as u32,
        Direction::Egress => DropReason::EgressDenied as u32,
    }
}

#[inline(always)]
fn connection_key(key: &mut ConnectionKey, family: u32, own: &[u8; 16], other: &[u8; 16], sides: &Sides) {
    key.own = *own;
    key.other = *other;
    key.local = sides.local;
    key.remote = sides.remote;
    key.protocol = sides.protocol;
    key.asks = sides.asks;
    key.family = family as u8;
    key.kind = KIND_CONNECTION;
}

#[inline(always)]
fn track(skb: Skb, work: &mut Scratch) -> u32 {
    let direction = work.direction;
    match identify(&work.upper, direction) {
        Identity::Tracked {
            sides,
            tracking,
            begins,
        } => {
            let (own, other) = match direction {
                Direction::Ingress => (&work.flow.destination, &work.flow.source),
                Direction::Egress => (&work.flow.source, &work.flow.destination),
            };
            connection_key(&mut work.key, work.flow.family, own, other, &sides);
            let at = find(work);
            let known = value_at(at);
            let segment = Segment {
                direction,
                tracking,
                tcp: work.upper.tcp,
                label: work.label,
            };
            match known.filter(|known| known.is_live(work.now)) {
                None if !begins => ANSWER_SINGLE,
                live => {
                    let step = connection::step(live, &segment, work.filter.epoch, work.now);
                    // What nearly all packets are: one more of a connection that stays where it lies.
                    if let Step::Pass(connection) = &step
                        && (work.place == PLACE_PENDING) == connection.is_expendable()
                        && let Some(at) = at
                    {
                        // SAFETY: as in `value_at`.
                        unsafe { *at = *connection };
                        return ANSWER_KEPT;
                    }
                    note(work, step)
                }
            }
        }
        Identity::Error => alcor_related(skb.0),
        Identity::Single => ANSWER_SINGLE,
    }
}

/// What is to be done about the connection that an ICMP error is about.
#[inline(always)]
fn related(skb: Skb, work: &mut Scratch) -> u32 {
    if flow::quoted_packet(skb, &work.flow, &mut work.quote).is_none() {
        return ANSWER_SINGLE;
    }
    // The quoted packet went the other way.
    let (way, own, other) = match work.direction {
        Direction::Ingress => (Direction::Egress, &work.quote.source, &work.quote.destination),
        Direction::Egress => (Direction::Ingress, &work.quote.destination, &work.quote.source),
    };
    let Identity::Tracked { sides, .. } = identify(&work.quote.upper, way) else {
        return ANSWER_SINGLE;
    };
    // An error goes to whoever sent the packet.
    if work.flow.destination != work.quote.source {
        return ANSWER_SINGLE;
    }
    connection_key(&mut work.key, work.flow.family, own, other, &sides);
    let known = value_at(find(work));
    match connection::related(known, work.filter.epoch, work.now) {
        Some(step) => note(work, step),
        None => ANSWER_SINGLE,
    }
}

/// Where the connection of the key is.
#[inline(always)]
fn find(work: &mut Scratch) -> Option<*mut Connection> {
    work.place = PLACE_NONE;
    let answered = ANSWERED.get(work.port)?;
    if let Some(known) = answered.get_ptr_mut(&work.key) {
        work.place = PLACE_ANSWERED;
        return Some(known);
    }
    let pending = PENDING.get(work.port)?;
    let known = pending.get_ptr_mut(&work.key)?;
    work.place = PLACE_PENDING;
    Some(known)
}

#[inline(always)]
fn value_at(known: Option<*mut Connection>) -> Option<Connection> {
    // SAFETY: it is an entry of a map. The kernel reuses entries that are forgotten, but not one that was asked for
    // just now while there are others.
    known.map(|known| unsafe { *known })
}

/// Notes what a step says.
#[inline(always)]
fn note(work: &mut Scratch, step: Step) -> u32 {
    match step {
        Step::Pass(connection) => {
            work.allowed = connection;
            ANSWER_PASS
        }
        Step::Deny(connection) => {
            work.denied = connection;
            work.keeps_denied = true;
            ANSWER_DENY
        }
        Step::Ask(question) => {
            let sides = Sides {
                local: work.key.local,
                remote: work.key.remote,
                protocol: work.key.protocol,
                asks: work.key.asks,
            };
            work.question.table = rule_table(question.direction, work.flow.family);
            work.question.other = work.key.other;
            work.question.label = question.label;
            work.question.protocol = sides.protocol;
            work.question.point = point_of(&sides, question.direction);
            work.allowed = question.allowed;
            work.keeps_denied = question.denied.is_some();
            if let Some(denied) = question.denied {
                work.denied = denied;
            }
            ANSWER_ASK
        }
    }
}

/// Keeps what is to be kept where it belongs; false when it cannot be kept. Entries that are there are written where they
/// lie: to put one anew is many times the work.
///
/// A connection that is answered leaves its entry in `PENDING` behind: nobody looks at it while the connection is in `ANSWERED`,
/// and most come back to it when they are over. Like all others there it goes when there is no room.
#[inline(always)]
fn keep(work: &mut Scratch, passes: bool) -> bool {
    let memories = (ANSWERED.get(work.port), PENDING.get(work.port));
    let (Some(answered), Some(pending)) = memories else {
        return false;
    };
    if !passes && !work.keeps_denied {
        if work.place == PLACE_ANSWERED {
            let _ = answered.remove(&work.key);
        }
        if work.place != PLACE_NONE {
            let _ = pending.remove(&work.key);
        }
        return true;
    }
    let connection = if passes { &work.allowed } else { &work.denied };
    let known = match (connection.is_expendable(), work.place) {
        (_, PLACE_NONE) | (false, PLACE_PENDING) => None,
        (true, _) => pending.get_ptr_mut(&work.key),
        (false, _) => answered.get_ptr_mut(&work.key),
    };
    let kept = if let Some(known) = known {
        // SAFETY: as in `value_at`.
        unsafe { *known = *connection };
        true
    } else if connection.is_expendable() {
        pending.insert(&work.key, connection, 0).is_ok()
    } else {
        answered.insert(&work.key, connection, 0).is_ok()
    };
    if work.place == PLACE_ANSWERED && connection.is_expendable() {
        let _ = answered.remove(&work.key);
    }
    kept
}

/// Asks the rules: the class of what the packet carries, then whether the other side's address or label has it.
#[inline(always)]
fn allows(work: &Scratch) -> bool {
    let epoch = work.filter.epoch;
    let question = &work.question;
    let service = ServiceKey {
        epoch,
        table: question.table as u8,
        protocol: question.protocol,
        point: question.point.to_be_bytes(),
    };
    let Some(&class) = SERVICES.get(&Key::new(SERVICE_BITS, service)) else {
        return false;
    };
    let prefix = PrefixKey {
        epoch,
        table: question.table,
        ip: question.other,
    };
    let bits = if work.flow.family == IPV4 { 32 } else { 128 };
    if let Some(&row) = PREFIXES.get(&Key::new(PREFIX_SCOPE_BITS + bits, prefix))
        && has_bit(epoch, row, class)
    {
        return true;
    }
    if question.label == 0 {
        return false;
    }
    let label = LabelKey {
        epoch,
        table: question.table as u16,
        label: question.label,
    };
    // SAFETY: entries are freed after an RCU grace period only; programs run inside a read section.
    match unsafe { LABELS.get(&label) } {
        Some(&row) => has_bit(epoch, row, class),
        None => false,
    }
}

#[inline(always)]
fn has_bit(epoch: u32, row: u32, class: u32) -> bool {
    let place = row * WORDS_PER_ROW + class / WORD_BITS;
    // SAFETY: as in `allows`.
    match unsafe { BITS.get(&BitsKey { epoch, place }) } {
        Some(&word) => word >> (class % WORD_BITS) & 1 == 1,
        None => false,
    }
}
