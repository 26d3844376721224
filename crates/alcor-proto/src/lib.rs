//! The protocols between Alcor's processes as generated code: messages and the gRPC services, nothing else.
//!
//! What the messages mean is said in `proto/alcor/v1/southbound.proto` and `proto/alcor/link/v1/link.proto`; conversion
//! to rows is in `alcor-southbound` and `alcor-link`.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

/// Version 1 of the protocol between NCM and agents.
pub mod v1 {
    tonic::include_proto!("alcor.v1");
}

/// Version 1 of the protocol between controller and NCM.
pub mod link {
    tonic::include_proto!("alcor.link.v1");
}
