//! A port's further DHCP options: one value for each name and IP version.

use alcor_model::{Port, resource::ExtraDhcpOption};

use super::command::DhcpOptionRequest;
use crate::RegionError;

/// Options for which the empty text is a value; of the others, it means none.
pub const BLANK_OPTIONS: [&str; 2] = ["router", "classless-static-route"];

/// The options after a change: each that is asked for replaces the one of its name and IP version, or takes it away.
pub(super) fn changed(
    mut options: Vec<ExtraDhcpOption>,
    asked: Vec<DhcpOptionRequest>,
) -> Result<Vec<ExtraDhcpOption>, RegionError> {
    for request in asked {
        let blank = BLANK_OPTIONS.contains(&request.name.as_str());
        let known = options
            .iter_mut()
            .find(|option| option.name == request.name && option.ip_version == request.ip_version);
        match (request.value, known) {
            (Some(value), Some(known)) if blank || !value.is_empty() => known.value = value,
            (Some(value), None) if blank || !value.is_empty() => options.push(ExtraDhcpOption {
                name: request.name,
                value,
                ip_version: request.ip_version,
            }),
            (Some(_), _) => {}
            (None, _) => options
                .retain(|option| option.name != request.name || option.ip_version != request.ip_version),
        }
    }
    if options.len() > Port::MAX_DHCP_OPTIONS {
        return Err(RegionError::InvalidInput(format!(
            "a port has at most {} extra DHCP options",
            Port::MAX_DHCP_OPTIONS
        )));
    }
    Ok(options)
}
