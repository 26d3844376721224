//! `alcor certs`: a development CA in a folder. Says where things are; keys themselves are never shown.

use std::path::Path;

use alcor_tls::{
    Identity, Role,
    issue::{Folder, FolderError, Subject, from_now},
};
use anyhow::anyhow;

use crate::{
    cli::{CertsAsked, IssueFlags},
    stdout,
};

/// Makes what is asked for.
///
/// # Errors
/// When a file cannot be read or written, one is there already, or a name cannot be.
pub fn make(what: &CertsAsked) -> anyhow::Result<()> {
    match what {
        CertsAsked::Ca { dir, days, force } => {
            let made = Folder::new(dir).create(from_now(*days), *force);
            let files = made.map_err(in_words)?;
            stdout::line(format_args!(
                "{} is for everybody; {} is for who issues certificates, and nobody else",
                files.certificate.display(),
                files.key.display()
            ))
        }
        CertsAsked::Issue { dir, flags } => issue(dir, flags),
    }
}

fn issue(dir: &Path, flags: &IssueFlags) -> anyhow::Result<()> {
    let subject = subject(flags)?;
    let made = Folder::new(dir).issue(&subject, from_now(flags.days), flags.force);
    let files = made.map_err(in_words)?;
    for identity in &subject.identities {
        stdout::line(format_args!("# {identity}"))?;
    }
    stdout::line("[tls]")?;
    stdout::line(toml::to_string(&files)?.trim_end())
}

/// With what can be done about it.
fn in_words(error: FolderError) -> anyhow::Error {
    match error {
        FolderError::Exists(path) => anyhow!("{} is there already; --force replaces it", path.display()),
        FolderError::Authority(path, error) => {
            anyhow!("{}: {error}; `alcor certs ca` makes an authority", path.display())
        }
        error @ (FolderError::Write(..) | FolderError::Issue(_)) => error.into(),
    }
}

/// Whose certificate it is, and where he will be found.
fn subject(flags: &IssueFlags) -> anyhow::Result<Subject> {
    let holders = [
        (Role::Controller, &flags.controller),
        (Role::Ncm, &flags.ncm),
        (Role::Gateway, &flags.gateway),
        (Role::Host, &flags.host),
    ];
    let mut identities = Vec::new();
    for (role, names) in holders {
        for name in names {
            identities.push(Identity::new(role, name)?);
        }
    }
    anyhow::ensure!(
        !identities.is_empty(),
        "say whose certificate: --host, --gateway, --ncm or --controller, each with a name"
    );
    let found = !(flags.ip.is_empty() && flags.dns.is_empty());
    anyhow::ensure!(
        found || !identities.iter().any(|identity| identity.role().listens()),
        "controllers and NCMs are connected to: say with --ip or --dns at what address or name, as in the URLs of the others"
    );
    Ok(Subject {
        identities,
        dns: flags.dns.clone(),
        ips: flags.ip.clone(),
    })
}
