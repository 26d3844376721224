//! What is carried when the region refuses some of it, and when it is away.

use alcor_model::resource::PortStatus;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::service::BoxFuture;

/// A command on its way to the region, and where its outcome goes.
#[derive(Debug)]
struct Told {
    what: Vec<String>,
    outcome: oneshot::Sender<Result<(), NotTaken>>,
}

/// A region that a test answers for.
struct Asked(mpsc::UnboundedSender<Told>);

impl Asked {
    fn tell(&self, what: Vec<String>) -> BoxFuture<'_, Result<(), NotTaken>> {
        let (outcome, said) = oneshot::channel();
        self.0.send(Told { what, outcome }).unwrap();
        Box::pin(async { said.await.unwrap() })
    }
}

impl RegionLink for Asked {
    fn register_host(&self, name: String, _: HostWord) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.tell(vec![name])
    }
    fn register_gateway(&self, name: String, _: String, _: IpAddr) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.tell(vec![name])
    }
    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.tell(reports.into_iter().map(|report| report.host).collect())
    }
    fn note_hosts(&self, hosts: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.tell(hosts.into_iter().map(|host| host.name).collect())
    }
    fn release_labels(&self, labels: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.tell(labels.into_iter().map(|_| "label".to_owned()).collect())
    }
    fn note_floating_ips(&self, words: Vec<FloatingIpWord>) -> BoxFuture<'_, Result<(), NotTaken>> {
        self.tell(words.into_iter().map(|_| "floating IP".to_owned()).collect())
    }
}

fn ip() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

fn report(number: u128) -> (Id<Port>, PortReport) {
    let port_id = Id::from_uuid(uuid::Uuid::from_u128(number));
    let report = PortReport {
        port_id,
        host: format!("p{number}"),
        applied_revision: Revision(1),
        status: PortStatus::Active,
        reason: None,
    };
    (port_id, report)
}

fn never() -> Result<(), NotTaken> {
    Err(NotTaken::Never("no".to_owned()))
}

fn later() -> Result<(), NotTaken> {
    Err(NotTaken::Later("not now".to_owned()))
}

struct Bench {
    outbox: Arc<Outbox>,
    told: mpsc::UnboundedReceiver<Told>,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new(patience: Duration) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let outbox = Arc::new(Outbox::default());
        let task = tokio::spawn(deliver(
            Arc::clone(&outbox),
            Arc::new(Asked(tell)),
            (patience, patience),
        ));
        Self { outbox, told, task }
    }

    async fn put(&self, fill: impl FnOnce(&mut Waiting)) {
        fill(&mut *self.outbox.waiting.lock().await);
        self.outbox.wake();
    }

    async fn next(&mut self) -> Told {
        self.told.recv().await.unwrap()
    }

    /// Nothing is left behind when the core is gone.
    async fn end(self) {
        let Self {
            outbox,
            mut told,
            task,
        } = self;
        outbox.close();
        task.await.unwrap();
        assert!(told.recv().await.is_none());
    }
}

/// A host that the region refuses for ever is told once; other hosts and all reports go on, at once.
#[tokio::test]
async fn one_host_that_is_refused_delays_nothing() {
    let mut bench = Bench::new(Duration::from_secs(3_600));
    let word = HostWord::new(ip(), "nova");
    bench
        .put(|waiting| {
            for host in ["h1", "h2"] {
                waiting.hosts.insert(host.to_owned(), word.clone());
            }
        })
        .await;
    for _ in 0..2 {
        let told = bench.next().await;
        let outcome = if told.what == ["h1"] { never() } else { Ok(()) };
        told.outcome.send(outcome).unwrap();
    }
    for number in 0..5 {
        bench
            .put(|waiting| {
                waiting.reports.extend([report(number)]);
                waiting.hosts.insert("h3".to_owned(), word.clone());
            })
            .await;
        for _ in 0..2 {
            bench.next().await.outcome.send(Ok(())).unwrap();
        }
    }
    bench.end().await;
}

/// Hosts that cannot be registered now are tried again with patience, which is theirs alone.
#[tokio::test]
async fn each_kind_has_its_own_patience() {
    for patience in [Duration::from_secs(3_600), Duration::from_millis(1)] {
        let mut bench = Bench::new(patience);
        bench
            .put(|waiting| {
                waiting.hosts.insert("h1".to_owned(), HostWord::new(ip(), "nova"));
            })
            .await;
        bench.next().await.outcome.send(later()).unwrap();
        if patience.as_secs() > 0 {
            // While the hosts wait, reports do not.
            bench.put(|waiting| waiting.reports.extend([report(1)])).await;
            let told = bench.next().await;
            assert_eq!(told.what, ["p1"]);
            told.outcome.send(Ok(())).unwrap();
            bench.task.abort();
            continue;
        }
        for outcome in [later(), later(), Ok(())] {
            let told = bench.next().await;
            assert_eq!(told.what, ["h1"]);
            told.outcome.send(outcome).unwrap();
        }
        bench.end().await;
    }
}

/// Of reports that are refused together only the one is dropped that is refused by itself.
#[tokio::test]
async fn one_report_that_is_refused_takes_no_other_along() {
    let mut bench = Bench::new(Duration::from_secs(3_600));
    bench
        .put(|waiting| waiting.reports.extend((0..100).map(report)))
        .await;
    let mut taken = Vec::new();
    while taken.len() < 99 {
        let told = bench.next().await;
        let outcome = match told.what.iter().any(|host| host == "p37") {
            true => never(),
            false => {
                taken.extend(told.what);
                Ok(())
            }
        };
        told.outcome.send(outcome).unwrap();
    }
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 99);
    assert!(!taken.contains(&"p37".to_owned()));
    bench.end().await;
}
