//! The verifier against a small Keystone on loopback: expiry, revocation, single flight, outages. Work is counted;
//! nothing depends on how long something takes.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use alcor_identity::{
    IdentityError, KeystoneConfig, Secret, Session, Stats, Verifier, VerifierConfig, Wanted, cache::Bounds,
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What the small Keystone knows and does.
#[derive(Default)]
struct Fake {
    /// Tokens and the second at which they expire.
    tokens: Mutex<HashMap<String, i64>>,
    /// Answers that come before any other, first in, first out.
    trouble: Mutex<Vec<StatusCode>>,
    /// Logins so far; the token of the service has their number in it.
    logins: AtomicU64,
    /// How long a service's token lasts.
    own_lasts: AtomicI64,
    /// Checks wait for a permit when there is a gate.
    gate: Mutex<Option<Arc<Notify>>>,
    /// A check has arrived.
    arrived: Notify,
    now: AtomicI64,
}

impl Fake {
    fn time(&self, second: i64) -> String {
        Timestamp::from_second(second).unwrap().to_string()
    }

    fn own(&self) -> String {
        format!("service-{}", self.logins.load(Ordering::SeqCst))
    }
}

async fn login(State(fake): State<Arc<Fake>>, Json(body): Json<Value>) -> Response {
    if let Some(status) = fake.trouble.lock().unwrap().pop() {
        return status.into_response();
    }
    if body["auth"]["identity"]["password"]["user"]["password"] != "rosebud" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    fake.logins.fetch_add(1, Ordering::SeqCst);
    let expires = fake.now.load(Ordering::SeqCst) + fake.own_lasts.load(Ordering::SeqCst);
    let endpoint = |interface: &str, region: &str| json!({"interface": interface, "region_id": region, "url": format!("http://{interface}.{region}/v2.1")});
    let catalog = json!([
        {"type": "identity", "endpoints": [endpoint("public", "one")]},
        {"type": "compute", "endpoints": [endpoint("public", "one"), endpoint("internal", "one"), endpoint("public", "two")]},
    ]);
    let body =
        json!({"token": {"expires_at": fake.time(expires), "user": {"id": "alcor"}, "catalog": catalog}});
    (StatusCode::CREATED, [("x-subject-token", fake.own())], Json(body)).into_response()
}

async fn check(State(fake): State<Arc<Fake>>, headers: HeaderMap) -> Response {
    fake.arrived.notify_one();
    let gate = fake.gate.lock().unwrap().clone();
    if let Some(gate) = gate {
        gate.notified().await;
    }
    if let Some(status) = fake.trouble.lock().unwrap().pop() {
        return status.into_response();
    }
    if headers["x-auth-token"] != fake.own().as_str() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let subject = headers["x-subject-token"].to_str().unwrap().to_owned();
    let Some(expires) = fake.tokens.lock().unwrap().get(&subject).copied() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    Json(json!({"token": {
        "expires_at": fake.time(expires),
        "user": {"id": format!("user-of-{subject}"), "name": "mia", "domain": {"id": "default"}},
        "project": {"id": "p1", "name": "one", "domain": {"id": "default"}},
        "roles": [{"name": "member"}, {"name": "reader"}],
    }}))
    .into_response()
}

struct Lab {
    session: Session,
    fake: Arc<Fake>,
    verifier: Verifier,
}

impl Lab {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut VerifierConfig)) -> Self {
        let fake = Arc::new(Fake::default());
        fake.own_lasts.store(3_600, Ordering::SeqCst);
        fake.tokens.lock().unwrap().insert("good".to_owned(), 1_000);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/v3/auth/tokens", get(check).post(login))
            .with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let mut config = VerifierConfig {
            keystone: KeystoneConfig {
                url: format!("http://{address}/v3/"),
                username: "alcor".to_owned(),
                password: Secret::new("rosebud"),
                user_domain_name: "Default".to_owned(),
                project_name: "service".to_owned(),
                project_domain_name: "Default".to_owned(),
                ca_file: None,
                timeout: Duration::from_secs(10),
                retries: 2,
                backoff: Duration::from_millis(1),
            },
            bounds: Bounds {
                capacity: 100,
                max_in_flight: 10,
                revocation: SignedDuration::from_secs(60),
                refusal: SignedDuration::from_secs(5),
            },
        };
        change(&mut config);
        let clock = Arc::clone(&fake);
        let clock = Arc::new(move || Timestamp::from_second(clock.now.load(Ordering::SeqCst)).unwrap());
        Self {
            session: Session::with_clock(config.keystone.clone(), clock.clone()).unwrap(),
            verifier: Verifier::with_clock(config, clock).unwrap(),
            fake,
        }
    }

    fn at(&self, second: i64) {
        self.fake.now.store(second, Ordering::SeqCst);
    }

    fn trouble(&self, answers: &[StatusCode]) {
        *self.fake.trouble.lock().unwrap() = answers.to_vec();
    }

    fn work(&self) -> (u64, u64) {
        let Stats { asked, logins, .. } = self.verifier.stats();
        (asked, logins)
    }
}

#[tokio::test]
async fn a_good_token_is_asked_for_once() {
    let lab = Lab::new().await;
    for _ in 0..3 {
        let verified = lab.verifier.check("good").await.unwrap();
        assert_eq!(verified.credentials.project_id.as_deref(), Some("p1"));
        assert_eq!(verified.credentials.user_id.as_deref(), Some("user-of-good"));
        assert_eq!(verified.credentials.roles, ["member", "reader"]);
    }
    assert_eq!(lab.work(), (1, 1));
}

#[tokio::test]
async fn unknown_tokens_are_refused_and_remembered_for_a_while() {
    let lab = Lab::new().await;
    for _ in 0..3 {
        assert_eq!(lab.verifier.check("forged").await, Err(IdentityError::Refused));
    }
    assert_eq!(lab.work(), (1, 1));
    lab.at(5);
    assert_eq!(lab.verifier.check("forged").await, Err(IdentityError::Refused));
    assert_eq!(lab.work(), (2, 1));
}

#[tokio::test]
async fn what_cannot_be_a_token_is_not_asked_for() {
    let lab = Lab::new().await;
    for token in ["", "two words", "line\nbreak", "caf\u{e9}", &"x".repeat(10_000)] {
        assert_eq!(lab.verifier.check(token).await, Err(IdentityError::Refused));
    }
    assert_eq!(lab.work(), (0, 0));
}

#[tokio::test]
async fn a_revoked_token_works_no_longer_than_the_bound() {
    let lab = Lab::new().await;
    lab.verifier.check("good").await.unwrap();
    lab.fake.tokens.lock().unwrap().clear();
    lab.at(59);
    lab.verifier.check("good").await.unwrap();
    lab.at(60);
    assert_eq!(lab.verifier.check("good").await, Err(IdentityError::Refused));
}

#[tokio::test]
async fn an_expired_token_is_refused_whatever_keystone_says() {
    let lab = Lab::new().await;
    lab.at(990);
    lab.verifier.check("good").await.unwrap();
    lab.at(1_000);
    assert_eq!(lab.verifier.check("good").await, Err(IdentityError::Refused));
    assert_eq!(lab.work().0, 2);
}

#[tokio::test]
async fn many_at_once_are_one_question() {
    let lab = Lab::new().await;
    let gate = Arc::new(Notify::new());
    *lab.fake.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let checks: Vec<_> = (0..20)
        .map(|_| {
            let verifier = lab.verifier.clone();
            tokio::spawn(async move { verifier.check("good").await })
        })
        .collect();
    lab.fake.arrived.notified().await;
    // Whoever began goes away; the others are answered all the same.
    checks[0].abort();
    gate.notify_one();
    for check in checks.into_iter().skip(1) {
        check.await.unwrap().unwrap();
    }
    assert_eq!(lab.work(), (1, 1));
}

#[tokio::test]
async fn too_many_different_tokens_at_once_are_turned_away() {
    let lab = Lab::with(|config| config.bounds.max_in_flight = 1).await;
    let gate = Arc::new(Notify::new());
    *lab.fake.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let first = lab.verifier.clone();
    let first = tokio::spawn(async move { first.check("good").await });
    lab.fake.arrived.notified().await;
    assert!(matches!(
        lab.verifier.check("other").await,
        Err(IdentityError::Unavailable(_))
    ));
    gate.notify_one();
    first.await.unwrap().unwrap();
    *lab.fake.gate.lock().unwrap() = None;
    assert_eq!(lab.verifier.check("other").await, Err(IdentityError::Refused));
}

#[tokio::test]
async fn the_services_own_token_is_renewed_in_time() {
    let lab = Lab::new().await;
    lab.fake.own_lasts.store(300, Ordering::SeqCst);
    lab.verifier.check("good").await.unwrap();
    lab.at(179);
    lab.verifier.check("good").await.unwrap();
    assert_eq!(lab.work(), (2, 1));
    lab.at(240);
    lab.verifier.check("good").await.unwrap();
    assert_eq!(lab.work(), (3, 2));
}

#[tokio::test]
async fn a_service_token_that_keystone_forgot_is_replaced() {
    let lab = Lab::new().await;
    lab.verifier.check("good").await.unwrap();
    lab.fake.logins.fetch_add(10, Ordering::SeqCst);
    lab.at(60);
    lab.verifier.check("good").await.unwrap();
    assert_eq!(lab.work(), (3, 2));
}

#[tokio::test]
async fn short_trouble_is_sat_out() {
    let lab = Lab::new().await;
    lab.trouble(&[StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE]);
    lab.verifier.check("good").await.unwrap();
    assert_eq!(lab.work(), (1, 3));
    lab.at(60);
    lab.trouble(&[StatusCode::TOO_MANY_REQUESTS]);
    lab.verifier.check("good").await.unwrap();
    assert_eq!(lab.work(), (3, 3));
}

#[tokio::test]
async fn when_keystone_is_out_nobody_passes_and_nobody_is_refused_for_good() {
    let lab = Lab::new().await;
    lab.verifier.check("good").await.unwrap();
    lab.at(60);
    lab.trouble(&[StatusCode::INTERNAL_SERVER_ERROR; 3]);
    assert!(matches!(
        lab.verifier.check("good").await,
        Err(IdentityError::Unavailable(_))
    ));
    assert_eq!(lab.work(), (4, 1));
    lab.verifier.check("good").await.unwrap();
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_an_outage() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let lab = Lab::with(|config| config.keystone.url = format!("http://{closed}")).await;
    assert!(matches!(
        lab.verifier.check("good").await,
        Err(IdentityError::Unavailable(_))
    ));
    assert_eq!(lab.work(), (0, 3));
}

#[tokio::test]
async fn a_wrong_password_is_our_trouble_and_not_the_clients() {
    let lab = Lab::with(|config| config.keystone.password = Secret::new("wrong")).await;
    let refused = lab.verifier.check("good").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "tokens cannot be checked now: Keystone answered 401 when asked to log in"
    );
    assert_eq!(lab.work(), (0, 1));
}

#[test]
fn addresses_and_certificates_are_checked_at_the_start() {
    let config = |url: &str, ca_file| VerifierConfig {
        keystone: KeystoneConfig {
            url: url.to_owned(),
            username: String::new(),
            password: Secret::default(),
            user_domain_name: String::new(),
            project_name: String::new(),
            project_domain_name: String::new(),
            ca_file,
            timeout: Duration::from_secs(1),
            retries: 0,
            backoff: Duration::ZERO,
        },
        bounds: Bounds {
            capacity: 1,
            max_in_flight: 1,
            revocation: SignedDuration::ZERO,
            refusal: SignedDuration::ZERO,
        },
    };
    let refused = |url: &str, ca: Option<&str>| {
        Verifier::new(config(url, ca.map(Into::into)))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("keystone:5000", None),
        "'keystone:5000' is no http or https address of Keystone"
    );
    assert!(refused("https://keystone", Some("/nowhere/ca.pem")).contains("/nowhere/ca.pem"));
    assert!(Verifier::new(config("https://keystone:5000/v3", None)).is_ok());
}

#[tokio::test]
async fn a_session_knows_where_services_are_and_logs_in_again_when_it_must() {
    let lab = Lab::new().await;
    let wanted = |interface: &str, region: Option<&str>| Wanted {
        service_type: "compute".to_owned(),
        interface: interface.to_owned(),
        region: region.map(str::to_owned),
    };
    for (wanted, endpoint) in [
        (wanted("public", None), "http://public.one/v2.1"),
        (wanted("public", Some("two")), "http://public.two/v2.1"),
        (wanted("internal", Some("one")), "http://internal.one/v2.1"),
    ] {
        assert_eq!(lab.session.access(&wanted).await.unwrap().endpoint, endpoint);
    }
    let nowhere = lab
        .session
        .access(&wanted("internal", Some("two")))
        .await
        .unwrap_err();
    assert!(
        nowhere.contains("no internal endpoint") && nowhere.contains("region two"),
        "{nowhere}"
    );
    assert_eq!(lab.fake.logins.load(Ordering::SeqCst), 1);
    let token = lab.session.token().await.unwrap();
    assert_eq!(token.reveal(), "service-1");
    lab.session.forget(&token).await;
    lab.session.forget(&token).await;
    assert_eq!(lab.session.token().await.unwrap().reveal(), "service-2");
    // Forgetting a token that is not the newest one changes nothing.
    lab.session.forget(&token).await;
    assert_eq!(lab.session.token().await.unwrap().reveal(), "service-2");
    lab.fake.now.store(3_500, Ordering::SeqCst);
    assert_eq!(lab.session.token().await.unwrap().reveal(), "service-3");
    lab.fake.now.store(8_000, Ordering::SeqCst);
    lab.fake
        .trouble
        .lock()
        .unwrap()
        .push(StatusCode::SERVICE_UNAVAILABLE);
    assert!(lab.session.token().await.unwrap_err().contains("503"));
}
