//! A development CA in a folder: `ca.pem`, `ca.key`, and two files for each certificate. Keys are for their owner only.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, ErrorKind, Write as _},
    ops::Range,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use thiserror::Error;

use super::{Authority, IssueError, Issued, Subject};
use crate::{files::TlsFiles, identity::Identity};

/// The authority's files are called so.
const AUTHORITY: &str = "ca";
/// Who may read a key.
const KEY_MODE: u32 = 0o600;
/// Who may read a certificate.
const CERTIFICATE_MODE: u32 = 0o644;

/// Nothing was made.
#[derive(Debug, Error)]
pub enum FolderError {
    /// A file is there, and was not to be replaced.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// There is no authority yet, or it cannot be read.
    #[error("cannot read {0}, of the authority")]
    Authority(PathBuf, #[source] io::Error),
    /// The folder or a file cannot be written.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// There is no such certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// A certificate's file and its key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate's.
    pub certificate: PathBuf,
    /// The key's.
    pub key: PathBuf,
}

impl Folder {
    /// This folder, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes an authority.
    ///
    /// # Errors
    /// When there is one and it is not to be replaced, or the folder cannot be written.
    pub fn create(&self, valid: Range<SystemTime>, replace: bool) -> Result<Pair, FolderError> {
        fs::create_dir_all(&self.0).map_err(|error| FolderError::Write(self.0.clone(), error))?;
        let pair = self.pair(AUTHORITY);
        pair.write(&Authority::new(valid)?.to_pem(), replace)?;
        Ok(pair)
    }

    /// Makes a certificate of the authority, with a new key, in files called after the first of its names.
    ///
    /// # Errors
    /// When there is no authority, the certificate cannot be, it is there and not to be replaced, or cannot be written.
    pub fn issue(
        &self,
        subject: &Subject,
        valid: Range<SystemTime>,
        replace: bool,
    ) -> Result<TlsFiles, FolderError> {
        let ca = self.pair(AUTHORITY);
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| FolderError::Authority(path.to_owned(), error))
        };
        let authority = Authority::from_pem(&read(&ca.certificate)?, &read(&ca.key)?)?;
        let issued = authority.issue(subject, valid)?;
        let stem = subject.identities.first().map(Identity::file_stem);
        let pair = self.pair(&stem.unwrap_or_default());
        pair.write(&issued, replace)?;
        Ok(TlsFiles {
            ca: ca.certificate,
            certificate: pair.certificate,
            key: pair.key,
        })
    }

    fn pair(&self, stem: &str) -> Pair {
        Pair {
            certificate: self.0.join(format!("{stem}.pem")),
            key: self.0.join(format!("{stem}.key")),
        }
    }
}

impl Pair {
    /// The key first: who sees the certificate finds the key too.
    fn write(&self, issued: &Issued, replace: bool) -> Result<(), FolderError> {
        for path in [&self.key, &self.certificate] {
            if !replace && path.exists() {
                return Err(FolderError::Exists(path.clone()));
            }
        }
        for (path, text, mode) in [
            (&self.key, &issued.key, KEY_MODE),
            (&self.certificate, &issued.certificate, CERTIFICATE_MODE),
        ] {
            write(path, text, mode).map_err(|error| FolderError::Write(path.clone(), error))?;
        }
        Ok(())
    }
}

/// Writes a new file and puts it in place: nobody ever reads half of one, or a key while others may.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // One was left by somebody who was interrupted, or none.
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    // Whatever the process's mask says.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

    use super::*;
    use crate::{
        files::{Tls, TlsError},
        identity::Role,
        issue::from_now,
    };

    fn subject(role: Role, name: &str) -> Subject {
        Subject {
            identities: vec![Identity::new(role, name).unwrap()],
            ..Subject::default()
        }
    }

    #[test]
    fn keys_are_their_owners_and_nothing_is_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("certs"));
        let h1 = subject(Role::Host, "h1");
        let early = folder.issue(&h1, from_now(1), false).unwrap_err();
        assert!(matches!(early, FolderError::Authority(..)), "{early}");
        let ca = folder.create(from_now(1), false).unwrap();
        let files = folder.issue(&h1, from_now(1), false).unwrap();
        assert_eq!(files.key.file_name().unwrap(), "host-h1.key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&ca.key), 0o600);
        assert_eq!(mode(&files.key), 0o600);
        assert_eq!(mode(&files.certificate), 0o644);

        let before = fs::read(&files.key).unwrap();
        let again = folder.issue(&h1, from_now(1), false).unwrap_err();
        assert!(matches!(again, FolderError::Exists(_)), "{again}");
        assert!(matches!(
            folder.create(from_now(1), false),
            Err(FolderError::Exists(_))
        ));
        assert_eq!(fs::read(&files.key).unwrap(), before);
        folder.issue(&h1, from_now(1), true).unwrap();
        assert_ne!(fs::read(&files.key).unwrap(), before);

        // The certificate of one authority with the key of another makes nothing.
        let mine = fs::read(&ca.certificate).unwrap();
        folder.create(from_now(1), true).unwrap();
        fs::write(&ca.certificate, mine).unwrap();
        let torn = folder
            .issue(&subject(Role::Host, "h2"), from_now(1), false)
            .unwrap_err();
        assert!(
            matches!(torn, FolderError::Issue(IssueError::Authority(_))),
            "{torn}"
        );
        assert!(!dir.path().join("certs/host-h2.key").exists());
    }

    #[test]
    fn a_certificate_says_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        folder.create(from_now(1), false).unwrap();
        let [h1, g1, h2] = [(Role::Host, "h1"), (Role::Gateway, "h1"), (Role::Host, "h2")]
            .map(|(role, name)| Identity::new(role, name).unwrap());
        let both = Subject {
            identities: vec![h1.clone(), h2.clone()],
            ..Subject::default()
        };
        let tls = Tls::load(&folder.issue(&both, from_now(1), false).unwrap()).unwrap();
        tls.must_name(&h1).unwrap();
        tls.must_name(&h2).unwrap();
        let error = tls.must_name(&g1).unwrap_err();
        assert!(matches!(error, TlsError::NotMine { .. }), "{error}");
        let words = error.to_string();
        assert!(
            words.contains("alcor://host/h1 and alcor://host/h2") && words.contains("alcor://gateway/h1"),
            "{words}"
        );
        tls.must_have_role(&[Role::Host]).unwrap();
        assert!(tls.must_have_role(&[Role::Ncm, Role::Controller]).is_err());
        let unreachable = Subject {
            dns: vec!["a b".to_owned()],
            ..both
        };
        let refused = folder.issue(&unreachable, from_now(1), true);
        assert!(matches!(refused, Err(FolderError::Issue(IssueError::Dns(_)))));
        let nobody = folder.issue(&Subject::default(), from_now(1), false);
        assert!(matches!(nobody, Err(FolderError::Issue(IssueError::Nobody))));
    }

    #[test]
    fn files_that_do_not_fit_are_refused_and_change_nothing_later() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        folder.create(from_now(1), false).unwrap();
        let h1 = folder
            .issue(&subject(Role::Host, "h1"), from_now(1), false)
            .unwrap();
        let h2 = folder
            .issue(&subject(Role::Host, "h2"), from_now(1), false)
            .unwrap();
        let torn = TlsFiles {
            key: h2.key.clone(),
            ..h1.clone()
        };
        assert!(matches!(Tls::load(&torn), Err(TlsError::Unusable { .. })));
        for wrong in [
            TlsFiles {
                ca: h1.key.clone(),
                ..h1.clone()
            },
            TlsFiles {
                certificate: h1.key.clone(),
                ..h1.clone()
            },
            TlsFiles {
                key: h1.certificate.clone(),
                ..h1.clone()
            },
            TlsFiles {
                key: dir.path().join("none"),
                ..h1.clone()
            },
        ] {
            assert!(
                matches!(Tls::load(&wrong), Err(TlsError::File { .. })),
                "{wrong:?}"
            );
        }

        let tls = Tls::load(&h1).unwrap();
        let [one, two] = ["h1", "h2"].map(|name| Identity::new(Role::Host, name).unwrap());
        fs::copy(&h2.certificate, &h1.certificate).unwrap();
        tls.must_name(&one).unwrap();
        fs::remove_file(&h1.key).unwrap();
        tls.must_name(&one).unwrap();
        fs::copy(&h2.key, &h1.key).unwrap();
        tls.must_name(&two).unwrap();
    }
}
