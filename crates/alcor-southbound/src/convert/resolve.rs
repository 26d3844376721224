//! Questions about addresses and their answers: what a host asks for when a packet needs a neighbour that no row
//! tells, and what it is told. Values only; who asks when is the agent's, what is answered the NCM's.

use std::{net::IpAddr, time::Duration};

use alcor_dataplane::{NeighbourRow, Row, RowChange};
use alcor_model::{Id, Network, Port, Revision};
use alcor_proto::v1;

use super::{DecodeError, decode_id, decode_ip, decode_row, encode_id, encode_ip, encode_neighbour};

/// Most questions in one message.
pub const QUESTIONS_MAX: usize = 1_024;

/// Messages of questions that an agent has on their way at once.
pub const MESSAGES_MAX: usize = 8;

/// Answers that may wait for an agent: to the messages that it has on their way, and to as many that it has given up to wait for.
pub const ANSWERS_MAX: usize = 2 * MESSAGES_MAX;

/// The lease that a host gives to neighbours which it is told of without having asked.
pub const LEASE_UNASKED: Duration = Duration::from_secs(300);

/// Who has this address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The network that it lies in.
    pub network: Id<Network>,
    /// The address.
    pub ip: IpAddr,
    /// The local port whose packet asks; `None` when a lease is renewed.
    pub port: Option<Id<Port>>,
}

/// What a question is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer itself.
    pub verdict: Verdict,
    /// How long it is good for, in whole milliseconds; with [`Verdict::Busy`]: when to ask again at the earliest.
    pub lease: Duration,
}

/// The kinds of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Where the address is, and the revision of that. The host is told of changes while its lease lasts.
    Route(Revision, NeighbourRow),
    /// Nobody has the address.
    Unknown,
    /// The host has no port in this network and may not ask.
    Deny,
    /// Not answered now: asked too often, or no room.
    Busy,
}

/// Questions as a message. The caller keeps to [`QUESTIONS_MAX`].
pub fn encode_questions(id: u64, questions: &[Question]) -> v1::Resolve {
    let questions = questions.iter().map(|question| v1::Question {
        network_id: encode_id(question.network),
        ip: encode_ip(question.ip),
        port_id: question.port.map(encode_id).unwrap_or_default(),
    });
    v1::Resolve {
        id,
        questions: questions.collect(),
    }
}

/// Reads questions.
///
/// # Errors
/// When there are more than [`QUESTIONS_MAX`], or one is not well-formed: the message as a whole is refused.
pub fn decode_questions(message: &v1::Resolve) -> Result<Vec<Question>, DecodeError> {
    if message.questions.len() > QUESTIONS_MAX {
        return Err(DecodeError::Range {
            what: "the number of questions",
            got: message.questions.len() as u64,
        });
    }
    message.questions.iter().map(decode_question).collect()
}

fn decode_question(message: &v1::Question) -> Result<Question, DecodeError> {
    let port = match message.port_id.is_empty() {
        true => None,
        false => Some(decode_id("the question's port id", &message.port_id)?),
    };
    Ok(Question {
        network: decode_id("the question's network id", &message.network_id)?,
        ip: decode_ip("the question's ip", &message.ip)?,
        port,
    })
}

/// Answers as a message, in the order of the questions.
pub fn encode_answers(id: u64, answers: &[Answer]) -> v1::Resolved {
    v1::Resolved {
        id,
        answers: answers.iter().map(encode_answer).collect(),
    }
}

fn encode_answer(answer: &Answer) -> v1::Answer {
    let (verdict, row) = match &answer.verdict {
        Verdict::Route(revision, row) => {
            let row = v1::Row {
                revision: revision.0,
                body: Some(v1::row::Body::Neighbour(encode_neighbour(row))),
            };
            (v1::Verdict::Route, Some(row))
        }
        Verdict::Unknown => (v1::Verdict::Unknown, None),
        Verdict::Deny => (v1::Verdict::Deny, None),
        Verdict::Busy => (v1::Verdict::Busy, None),
    };
    v1::Answer {
        verdict: verdict.into(),
        row,
        lease_ms: u32::try_from(answer.lease.as_millis()).unwrap_or(u32::MAX),
    }
}

/// Reads the answer to a question.
///
/// # Errors
/// When it has no verdict that is known, or is a route without a well-formed neighbour row of the address that was
/// asked for.
pub fn decode_answer(question: &Question, message: &v1::Answer) -> Result<Answer, DecodeError> {
    let verdict = match message.verdict() {
        v1::Verdict::Unspecified => return Err(DecodeError::Missing("the answer's verdict")),
        v1::Verdict::Route => {
            let row = message
                .row
                .as_ref()
                .ok_or(DecodeError::Missing("the answer's row"))?;
            match decode_row(question.network, row)? {
                (revision, RowChange::Put(Row::Neighbour(row))) if row.ip == question.ip => {
                    Verdict::Route(revision, row)
                }
                _ => return Err(DecodeError::Missing("the neighbour that was asked for")),
            }
        }
        v1::Verdict::Unknown => Verdict::Unknown,
        v1::Verdict::Deny => Verdict::Deny,
        v1::Verdict::Busy => Verdict::Busy,
    };
    Ok(Answer {
        verdict,
        lease: Duration::from_millis(u64::from(message.lease_ms)),
    })
}

#[cfg(test)]
mod tests {
    use alcor_model::MacAddr;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn question(ip: IpAddr, port: Option<u128>) -> Question {
        let id = |number| Id::from_uuid(uuid::Uuid::from_u128(number));
        Question {
            network: id(7),
            ip,
            port: port.map(|number| Id::from_uuid(uuid::Uuid::from_u128(number))),
        }
    }

    fn route(ip: IpAddr, host: IpAddr) -> Verdict {
        let row = NeighbourRow {
            network_id: question(ip, None).network,
            ip,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            host,
            label: 3,
            forward: true,
        };
        Verdict::Route(Revision(9), row)
    }

    proptest! {
        /// Questions and answers arrive as they left.
        #[test]
        fn they_travel(ip: IpAddr, host: IpAddr, port: Option<u128>, lease_ms: u32) {
            let asked = [question(ip, port), question(host, None)];
            prop_assert_eq!(decode_questions(&encode_questions(1, &asked)), Ok(asked.to_vec()));
            let lease = Duration::from_millis(u64::from(lease_ms));
            for verdict in [route(ip, host), Verdict::Unknown, Verdict::Deny, Verdict::Busy] {
                let answer = Answer { verdict, lease };
                let message = encode_answers(1, &[answer]);
                prop_assert_eq!(decode_answer(&asked[0], &message.answers[0]), Ok(answer));
            }
        }

        /// Any bytes are a message or an error.
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, ip: IpAddr) {
            if let Ok(message) = v1::Resolve::decode(bytes.as_slice()) {
                let _ = decode_questions(&message);
            }
            if let Ok(message) = v1::Answer::decode(bytes.as_slice()) {
                let _ = decode_answer(&question(ip, None), &message);
            }
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        let ip = IpAddr::from([10, 0, 0, 1]);
        let asked = question(ip, None);
        let missing = |what| Err(DecodeError::Missing(what));
        let answer = |verdict: v1::Verdict, row| v1::Answer {
            verdict: verdict.into(),
            row,
            lease_ms: 1,
        };
        let read = |message: &v1::Answer| decode_answer(&asked, message);
        assert_eq!(
            read(&answer(v1::Verdict::Unspecified, None)),
            missing("the answer's verdict")
        );
        assert_eq!(
            read(&answer(v1::Verdict::Route, None)),
            missing("the answer's row")
        );
        let other = Answer {
            verdict: route(IpAddr::from([10, 0, 0, 2]), ip),
            lease: Duration::ZERO,
        };
        assert_eq!(
            read(&encode_answer(&other)),
            missing("the neighbour that was asked for")
        );
        let many = vec![asked; QUESTIONS_MAX + 1];
        assert_eq!(
            decode_questions(&encode_questions(1, &many)),
            Err(DecodeError::Range {
                what: "the number of questions",
                got: 1_025
            })
        );
    }
}
