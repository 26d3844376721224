//! A port's names: what may be asked for, and what its addresses are called.

use std::net::IpAddr;

use alcor_model::Port;

use crate::RegionError;

/// Longest full name in characters, with the dot at its end (Neutron's limit).
const FQDN_MAX: usize = 255;

/// What one address of a port is called (an element of Neutron's `dns_assignment`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DnsAssignment {
    /// The address.
    pub ip_address: IpAddr,
    /// The name without domain.
    pub hostname: String,
    /// The name with the region's domain.
    pub fqdn: String,
}

/// The region's domain with its dot, or the empty text.
fn absolute(domain: &str) -> String {
    match domain.trim_end_matches('.') {
        "" => String::new(),
        bare => format!("{bare}."),
    }
}

/// Checks a name against the region's domain: with it, it must still be a name, and a full name must lie in it. Names
/// are in small letters.
pub(super) fn check_name(name: String, domain: &str) -> Result<String, RegionError> {
    let (name, domain) = (name.to_ascii_lowercase(), absolute(domain));
    if name.is_empty() || domain.is_empty() {
        return Ok(name);
    }
    let inside = name
        .strip_suffix(&domain)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
    if name.ends_with('.') && !inside {
        return Err(RegionError::InvalidInput(format!(
            "the dns_name '{name}' is a full name, which must end with the region's domain '{domain}' and have labels before it"
        )));
    }
    if !name.ends_with('.') && name.len() + 1 + domain.len() > FQDN_MAX {
        return Err(RegionError::InvalidInput(format!(
            "the dns_name '{name}' with the region's domain '{domain}' has more than {FQDN_MAX} characters"
        )));
    }
    Ok(name)
}

/// What a port's addresses are called: by its name, or by themselves when it has none.
pub fn assignments(port: &Port, domain: &str) -> Vec<DnsAssignment> {
    let domain = absolute(domain);
    let named = |ip: IpAddr| match port.dns_name.as_str() {
        "" => format!("host-{}", ip.to_string().replace(['.', ':'], "-")),
        name => name.to_owned(),
    };
    port.fixed_ips
        .iter()
        .map(|fixed| {
            let hostname = named(fixed.ip_address);
            let fqdn = if hostname.ends_with('.') || domain.is_empty() {
                hostname.clone()
            } else {
                format!("{hostname}.{domain}")
            };
            DnsAssignment {
                ip_address: fixed.ip_address,
                hostname,
                fqdn,
            }
        })
        .collect()
}
