//! Checks tokens: the cache, and Keystone behind it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{
    cache::{Answer, Bounds, Cache, Decision, Key},
    keystone::{Asked, Keystone, KeystoneConfig, KeystoneError},
    secret::Secret,
    token::Verified,
};

/// Longest token in bytes; a longer one is none.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Settings.
#[derive(Clone, Debug)]
pub struct VerifierConfig {
    /// Keystone.
    pub keystone: KeystoneConfig,
    /// The cache.
    pub bounds: Bounds,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Keystone does not know it, or it has expired.
    #[error("the token is not valid")]
    Refused,
    /// Keystone cannot be asked.
    #[error("tokens cannot be checked now: {0}")]
    Unavailable(String),
}

/// Work done, for tests and operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls to Keystone about a token, new tries included.
    pub asked: u64,
    /// Logins of the service, new tries included.
    pub logins: u64,
}

type Outcome = Result<Arc<Verified>, IdentityError>;
type Waiter = watch::Receiver<Option<Outcome>>;

struct Inner {
    keystone: Keystone,
    cache: Mutex<Cache<Verified, Waiter>>,
    clock: Clock,
    asked: AtomicU64,
    logins: AtomicU64,
}

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Settles a flight when its task ends, also when it ends without an answer: nobody waits for ever, and the next
/// request asks again.
struct Flight {
    inner: Arc<Inner>,
    key: Key,
    waiters: watch::Sender<Option<Outcome>>,
    answer: Answer<Verified>,
    outcome: Outcome,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let now = (self.inner.clock)();
        self.inner.cache().settle(self.key, now, &self.answer);
        let outcome = std::mem::replace(&mut self.outcome, Err(IdentityError::Refused));
        // Fails when nobody waits any more.
        let _ = self.waiters.send(Some(outcome));
    }
}

impl Inner {
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache<Verified, Waiter>> {
        // Every method leaves the cache whole, so a panic elsewhere does not make it worse.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verifier {
    /// Makes a checker that reads the system's clock.
    ///
    /// # Errors
    /// When the address or the certificates are of no use. Keystone is not asked yet.
    pub fn new(config: VerifierConfig) -> Result<Self, KeystoneError> {
        Self::with_clock(config, Arc::new(Timestamp::now))
    }

    /// As [`Verifier::new`], with a clock.
    ///
    /// # Errors
    /// As [`Verifier::new`].
    pub fn with_clock(config: VerifierConfig, clock: Clock) -> Result<Self, KeystoneError> {
        Ok(Self(Arc::new(Inner {
            keystone: Keystone::new(config.keystone, Arc::clone(&clock), false)?,
            cache: Mutex::new(Cache::new(config.bounds)),
            clock,
            asked: AtomicU64::new(0),
            logins: AtomicU64::new(0),
        })))
    }

    /// What a token proves.
    ///
    /// # Errors
    /// When it proves nothing, or when nobody can tell.
    pub async fn check(&self, token: &str) -> Outcome {
        if token.is_empty()
            || token.len() > MAX_TOKEN_BYTES
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(IdentityError::Refused);
        }
        let key: Key = Sha256::digest(token.as_bytes()).into();
        let (waiters, waiter) = watch::channel(None);
        let decision = self.0.cache().decide(key, (self.0.clock)(), waiter.clone());
        let waiter = match decision {
            Decision::Good(proof) => return Ok(proof),
            Decision::Refused => return Err(IdentityError::Refused),
            Decision::Busy => {
                return Err(IdentityError::Unavailable(
                    "too many tokens are being checked".to_owned(),
                ));
            }
            Decision::Wait(waiter) => waiter,
            Decision::Ask => {
                self.fly(key, Secret::new(token), waiters);
                waiter
            }
        };
        landed(waiter).await
    }

    /// Asks in a task of its own: whoever began may go away, others wait for the answer too.
    fn fly(&self, key: Key, token: Secret, waiters: watch::Sender<Option<Outcome>>) {
        let mut flight = Flight {
            inner: Arc::clone(&self.0),
            key,
            waiters,
            answer: Answer::Unknown,
            outcome: Err(IdentityError::Unavailable("the check was given up".to_owned())),
        };
        tokio::spawn(async move {
            let inner = Arc::clone(&flight.inner);
            let asked = inner
                .keystone
                .ask(
                    &token,
                    || {
                        inner.asked.fetch_add(1, Ordering::Relaxed);
                    },
                    || {
                        inner.logins.fetch_add(1, Ordering::Relaxed);
                    },
                )
                .await;
            (flight.answer, flight.outcome) = concluded(asked, (inner.clock)());
            let hash = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
            match &flight.outcome {
                Ok(_) => tracing::debug!("token {hash:08x} is good"),
                Err(IdentityError::Refused) => tracing::debug!("token {hash:08x} is refused"),
                Err(IdentityError::Unavailable(reason)) => {
                    tracing::warn!(reason, "token {hash:08x} cannot be checked");
                }
            }
        });
    }

    /// Work done so far.
    pub fn stats(&self) -> Stats {
        Stats {
            asked: self.0.asked.load(Ordering::Relaxed),
            logins: self.0.logins.load(Ordering::Relaxed),
        }
    }
}

/// What an answer means at a time: a token that has expired by our clock is refused even if Keystone's is behind.
fn concluded(asked: Asked, now: Timestamp) -> (Answer<Verified>, Outcome) {
    match asked {
        Asked::Good(verified) if verified.expires_at > now => {
            let proof = Arc::new(*verified);
            let answer = Answer::Good {
                proof: Arc::clone(&proof),
                expires_at: proof.expires_at,
            };
            (answer, Ok(proof))
        }
        Asked::Good(_) | Asked::Refused => (Answer::Refused, Err(IdentityError::Refused)),
        Asked::Unknown(reason) => (Answer::Unknown, Err(IdentityError::Unavailable(reason))),
    }
}

async fn landed(mut waiter: Waiter) -> Outcome {
    let outcome = match waiter.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone(),
        Err(_) => None,
    };
    outcome.unwrap_or_else(|| Err(IdentityError::Unavailable("the check was given up".to_owned())))
}
