//! The goal-state protocol as generated code: messages and the gRPC service, nothing else.
//!
//! What the messages mean is said in `proto/alcor/v1/southbound.proto`; conversion to rows is in
//! `alcor-southbound`.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

/// Version 1 of the protocol.
pub mod v1 {
    tonic::include_proto!("alcor.v1");
}
