//! Connection tracking as a pure decision: what a packet means to a connection of one port.
//!
//! [`step`] takes what is known of the connection and the packet, and says whether the packet passes as it is,
//! whether the rules must be asked first, and what to keep. It knows no tables, no rules and no clock: model and
//! kernel programs bring those. Time is nanoseconds of any clock that does not go back.
//!
//! A connection is seen from one port: `local` is the port's side. Two ports of one host that talk to each other
//! have an entry each, so both are judged the same way wherever the other one is.

/// A second of the clock.
pub const SECOND: u64 = 1_000_000_000;

/// A TCP connection that was asked for and not answered yet.
pub const TCP_OPENING: u64 = 60 * SECOND;
/// A TCP connection that was answered, or picked up and answered.
pub const TCP_ESTABLISHED: u64 = 432_000 * SECOND;
/// A TCP connection that was picked up in its middle and not answered since.
pub const TCP_PICKED_UP: u64 = 300 * SECOND;
/// A TCP connection that one side has closed.
pub const TCP_CLOSING: u64 = 120 * SECOND;
/// A TCP connection that both sides have closed.
pub const TCP_CLOSED: u64 = 60 * SECOND;
/// A TCP connection after a reset.
pub const TCP_RESET: u64 = 10 * SECOND;
/// A TCP connection that rules no longer allow: longer than a station tries to send what is not acknowledged.
pub const TCP_REVOKED: u64 = 1800 * SECOND;
/// UDP that was not answered yet.
pub const UDP_OPENING: u64 = 30 * SECOND;
/// UDP that was answered.
pub const UDP_ANSWERED: u64 = 180 * SECOND;
/// A ping.
pub const ICMP_QUERY: u64 = 30 * SECOND;
/// Any other protocol that was not answered yet.
pub const OTHER_OPENING: u64 = 60 * SECOND;
/// Any other protocol that was answered.
pub const OTHER_ANSWERED: u64 = 600 * SECOND;
/// Anything but TCP that rules no longer allow, from the last packet of the side that began.
pub const REVOKED: u64 = 180 * SECOND;
/// How long later fragments of a packet may follow its first one.
pub const FRAGMENT: u64 = 30 * SECOND;

/// TCP flag: no more data.
pub const TCP_FIN: u8 = 1;
/// TCP flag: synchronise.
pub const TCP_SYN: u8 = 2;
/// TCP flag: reset.
pub const TCP_RST: u8 = 4;
/// TCP flag: acknowledgement.
pub const TCP_ACK: u8 = 16;

/// [`Connection::flags`]: the port's side began it.
pub const BEGAN_LOCAL: u8 = 1;
/// [`Connection::flags`]: the other side has answered.
pub const ANSWERED: u8 = 1 << 1;
/// [`Connection::flags`]: the side that began has sent a FIN.
pub const FIN_BEGINNER: u8 = 1 << 2;
/// [`Connection::flags`]: the side that answers has sent a FIN.
pub const FIN_ANSWERER: u8 = 1 << 3;
/// [`Connection::flags`]: one side has sent a RST.
pub const RESET: u8 = 1 << 4;
/// [`Connection::flags`]: TCP of which no SYN was seen.
pub const PICKED_UP: u8 = 1 << 5;
/// [`Connection::flags`]: rules allowed it once and do not any more.
pub const IS_REVOKED: u8 = 1 << 6;

/// Which way a packet goes.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the port.
    Ingress = 0,
    /// From the port.
    Egress = 1,
}

/// How a protocol is tracked.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tracking {
    /// TCP, by its flags.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP and ICMPv6 messages that are answered: echo and, in ICMP, timestamp, information and address mask.
    Query = 2,
    /// Everything else that has two sides.
    Other = 3,
}

/// What is known of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// When it is forgotten.
    pub expires_ns: u64,
    /// Version of the port's rules that judged it last.
    pub epoch: u32,
    /// Label of the other side when it was judged last.
    pub label: u16,
    /// A [`Tracking`].
    pub tracking: u8,
    /// `BEGAN_LOCAL` and the others above.
    pub flags: u8,
}

const _: () = assert!(core::mem::size_of::<Connection>() == 16);

/// What a packet says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which way it goes.
    pub direction: Direction,
    /// How its protocol is tracked.
    pub tracking: Tracking,
    /// TCP flags; 0 for other protocols and for fragments that are not the first.
    pub tcp: u8,
    /// Label of the other side.
    pub label: u16,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It belongs to a connection that the present rules allow: it passes, this is kept.
    Pass(Connection),
    /// It belongs to a connection that the present rules do not allow: it is dropped, this is kept.
    Deny(Connection),
    /// The rules decide.
    Ask(Question),
}

/// What the rules are asked, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which way the connection began: the rules of this direction are asked.
    pub direction: Direction,
    /// Label of the other side.
    pub label: u16,
    /// To keep if they say yes; the packet passes.
    pub allowed: Connection,
    /// To keep if they say no, `None` for nothing; the packet is dropped.
    pub denied: Option<Connection>,
}

impl Connection {
    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Which way it began.
    #[inline(always)]
    pub const fn direction(&self) -> Direction {
        if self.has(BEGAN_LOCAL) {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    /// False once it is to be forgotten.
    #[inline(always)]
    pub const fn is_live(&self, now: u64) -> bool {
        self.expires_ns > now
    }

    /// True for one that may be forgotten early when there is no room for another: nobody answered it, it is
    /// over, or the rules do not allow it.
    #[inline(always)]
    pub const fn is_expendable(&self) -> bool {
        !self.has(ANSWERED) || self.has(RESET | IS_REVOKED) || self.is_over()
    }

    /// TCP that both sides have closed, or one has reset.
    #[inline(always)]
    const fn is_over(&self) -> bool {
        self.has(RESET) || (self.has(FIN_BEGINNER) && self.has(FIN_ANSWERER))
    }

    /// How long it is kept without news.
    #[inline(always)]
    const fn lifetime(&self) -> u64 {
        if self.tracking == Tracking::Tcp as u8 {
            self.tcp_lifetime()
        } else if self.has(IS_REVOKED) {
            REVOKED
        } else if self.tracking == Tracking::Query as u8 {
            ICMP_QUERY
        } else {
            match (self.tracking == Tracking::Udp as u8, self.has(ANSWERED)) {
                (true, false) => UDP_OPENING,
                (true, true) => UDP_ANSWERED,
                (false, false) => OTHER_OPENING,
                (false, true) => OTHER_ANSWERED,
            }
        }
    }

    #[inline(always)]
    const fn tcp_lifetime(&self) -> u64 {
        if self.has(IS_REVOKED) {
            TCP_REVOKED
        } else if self.has(RESET) {
            TCP_RESET
        } else if self.is_over() {
            TCP_CLOSED
        } else if self.has(FIN_BEGINNER) || self.has(FIN_ANSWERER) {
            TCP_CLOSING
        } else if self.has(ANSWERED) {
            TCP_ESTABLISHED
        } else if self.has(PICKED_UP) {
            TCP_PICKED_UP
        } else {
            TCP_OPENING
        }
    }

    /// A new connection, as its first packet makes it.
    #[inline(always)]
    const fn begin(segment: &Segment, epoch: u32, now: u64) -> Self {
        let mut flags = 0;
        if matches!(segment.direction, Direction::Egress) {
            flags |= BEGAN_LOCAL;
        }
        if matches!(segment.tracking, Tracking::Tcp) && segment.tcp & TCP_SYN == 0 {
            flags |= PICKED_UP;
        }
        let connection = Self {
            expires_ns: 0,
            epoch,
            label: segment.label,
            tracking: segment.tracking as u8,
            flags,
        };
        connection.advance(segment, true, now)
    }

    /// The connection after one more packet.
    #[inline(always)]
    const fn advance(mut self, segment: &Segment, from_beginner: bool, now: u64) -> Self {
        let was_reset = self.has(RESET);
        if !from_beginner {
            self.flags |= ANSWERED;
        }
        if segment.tcp & TCP_FIN != 0 {
            self.flags |= if from_beginner { FIN_BEGINNER } else { FIN_ANSWERER };
        }
        if segment.tcp & TCP_RST != 0 {
            self.flags |= RESET;
        }
        // What follows a reset does not keep it: a station that goes on is picked up anew.
        if !was_reset {
            self.expires_ns = now.saturating_add(self.lifetime());
        }
        self
    }

    /// The connection after a packet that rules do not allow any more.
    #[inline(always)]
    const fn revoke(mut self, epoch: u32, label: u16, from_beginner: bool, now: u64) -> Self {
        // The side that answers does not keep the memory of a revoked UDP connection: what it sends later is its
        // own beginning. TCP begins with a SYN, so there both sides keep it.
        let is_tcp = self.tracking == Tracking::Tcp as u8;
        let keeps = is_tcp || from_beginner || !self.has(IS_REVOKED);
        self.flags |= IS_REVOKED;
        self.epoch = epoch;
        self.label = label;
        if keeps {
            self.expires_ns = now.saturating_add(self.lifetime());
        }
        self
    }
}

/// What becomes of a packet, given what is known of its connection, the version of the port's rules and the time.
#[inline(always)]
pub const fn step(known: Option<Connection>, segment: &Segment, epoch: u32, now: u64) -> Step {
    let Some(connection) = known else {
        return open(segment, epoch, now);
    };
    if !connection.is_live(now) {
        return open(segment, epoch, now);
    }
    let is_syn = segment.tcp & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN;
    if is_syn && (connection.is_over() || connection.has(IS_REVOKED)) {
        return match open(segment, epoch, now) {
            // Refused too: the memory of the old one stays.
            Step::Ask(question) if connection.has(IS_REVOKED) => Step::Ask(Question {
                denied: Some(connection),
                ..question
            }),
            step => step,
        };
    }
    let from_beginner = connection.direction() as u8 == segment.direction as u8;
    // What comes in says who it is from. What goes out has the label of a row, which may be older news than what
    // the other side has said itself: it counts only where rules ask for it, when this side began.
    let is_ingress = matches!(segment.direction, Direction::Ingress);
    let label = if is_ingress || from_beginner {
        segment.label
    } else {
        connection.label
    };
    let judged = connection.epoch == epoch && connection.label == label;
    if judged && connection.has(IS_REVOKED) {
        return Step::Deny(connection.revoke(epoch, label, from_beginner, now));
    }
    let mut allowed = connection;
    allowed.flags &= !IS_REVOKED;
    allowed.epoch = epoch;
    allowed.label = label;
    let allowed = allowed.advance(segment, from_beginner, now);
    if judged {
        return Step::Pass(allowed);
    }
    Step::Ask(Question {
        direction: connection.direction(),
        label,
        allowed,
        denied: Some(connection.revoke(epoch, label, from_beginner, now)),
    })
}

/// An error message (ICMP) about a packet of a connection: it passes like a packet of the connection's other
/// side, and keeps nothing alive.
#[inline(always)]
pub const fn related(known: Option<Connection>, epoch: u32, now: u64) -> Option<Step> {
    match known {
        Some(connection) if connection.is_live(now) => Some(if connection.epoch != epoch {
            let mut allowed = connection;
            allowed.flags &= !IS_REVOKED;
            allowed.epoch = epoch;
            Step::Ask(Question {
                direction: connection.direction(),
                label: connection.label,
                allowed,
                denied: Some(connection.revoke(epoch, connection.label, false, now)),
            })
        } else if connection.has(IS_REVOKED) {
            Step::Deny(connection)
        } else {
            Step::Pass(connection)
        }),
        _ => None,
    }
}

#[inline(always)]
const fn open(segment: &Segment, epoch: u32, now: u64) -> Step {
    Step::Ask(Question {
        direction: segment.direction,
        label: segment.label,
        allowed: Connection::begin(segment, epoch, now),
        denied: None,
    })
}
