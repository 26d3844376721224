//! Allocators under many clients at once, against an oracle that only knows what was answered: nothing is given
//! twice, and nothing is lost.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use alcor_model::{Id, MacAddr, Network, Subnet, Vni};
use proptest::prelude::*;

use super::*;

/// What clients were told they have.
#[derive(Default)]
struct Oracle {
    addresses: HashSet<(Id<Subnet>, IpAddr)>,
    macs: HashSet<(Id<Network>, MacAddr)>,
    vnis: HashSet<Vni>,
}

impl Oracle {
    fn gained(&mut self, port: &Port) {
        assert!(
            self.macs.insert((port.network_id, port.mac_address)),
            "MAC given twice: {port:?}"
        );
        for fixed in &port.fixed_ips {
            assert!(
                self.addresses.insert((fixed.subnet_id, fixed.ip_address)),
                "address given twice: {port:?}"
            );
        }
    }

    fn lost(&mut self, port: &Port) {
        assert!(self.macs.remove(&(port.network_id, port.mac_address)));
        for fixed in &port.fixed_ips {
            assert!(self.addresses.remove(&(fixed.subnet_id, fixed.ip_address)));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Port(u8),
    NoPort(u8),
    Network,
    NoNetwork(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any::<u8>().prop_map(Step::Port),
        3 => any::<u8>().prop_map(Step::NoPort),
        2 => Just(Step::Network),
        2 => any::<u8>().prop_map(Step::NoNetwork),
    ]
}

const VNIS: u32 = 12;
/// Addresses of a port's subnet that the pools have: a /28 without its ends and the gateway.
const POOL: usize = 13;
/// MAC addresses of a network.
const MACS: usize = 16;

fn few_of_everything() -> Place {
    let config = RegionConfig {
        vni_first: Vni::try_from(5).unwrap(),
        vni_last: Vni::try_from(4 + VNIS).unwrap(),
        ..RegionConfig::default()
    };
    Place::new(config, MACS.ilog2())
}

/// One client: it deletes only what it made. The oracle forgets before the region is asked to.
async fn client(region: Region, steps: Vec<Step>, networks: Vec<Id<Network>>, oracle: Arc<Mutex<Oracle>>) {
    let mut ports: Vec<Arc<Port>> = Vec::new();
    let mut own: Vec<Arc<Network>> = Vec::new();
    for step in steps {
        match step {
            Step::Port(n) => {
                let network = networks[usize::from(n) % networks.len()];
                match region.create::<Port>(&admin(), vec![port_of(network)]).await {
                    Ok(made) => {
                        oracle.lock().unwrap().gained(&made[0]);
                        ports.extend(made);
                    }
                    Err(
                        RegionError::IpAddressGenerationFailure(_)
                        | RegionError::MacAddressGenerationFailure(_),
                    ) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::NoPort(n) if !ports.is_empty() => {
                let port = ports.swap_remove(usize::from(n) % ports.len());
                oracle.lock().unwrap().lost(&port);
                region.delete::<Port>(&admin(), port.id, None).await.unwrap();
            }
            Step::Network => match region
                .create::<Network>(&admin(), vec![NetworkCreate::default()])
                .await
            {
                Ok(made) => {
                    assert!(
                        oracle.lock().unwrap().vnis.insert(made[0].segmentation_id),
                        "VNI given twice"
                    );
                    own.extend(made);
                }
                Err(RegionError::NoNetworkAvailable) => {}
                Err(error) => panic!("{error}"),
            },
            Step::NoNetwork(n) if !own.is_empty() => {
                let network = own.swap_remove(usize::from(n) % own.len());
                assert!(oracle.lock().unwrap().vnis.remove(&network.segmentation_id));
                region
                    .delete::<Network>(&admin(), network.id, None)
                    .await
                    .unwrap();
            }
            Step::NoPort(_) | Step::NoNetwork(_) => {}
        }
    }
    for port in ports {
        oracle.lock().unwrap().lost(&port);
        region.delete::<Port>(&admin(), port.id, None).await.unwrap();
    }
    for network in own {
        oracle.lock().unwrap().vnis.remove(&network.segmentation_id);
        region
            .delete::<Network>(&admin(), network.id, None)
            .await
            .unwrap();
    }
}

/// After everything is deleted, everything can be given again, and then no more.
async fn nothing_is_lost(place: &Place, networks: &[Id<Network>]) {
    for network in networks {
        let addresses: HashSet<_> = place
            .region
            .create::<Port>(&admin(), vec![port_of(*network); POOL])
            .await
            .unwrap()
            .iter()
            .map(|port| port.fixed_ips[0].ip_address)
            .collect();
        assert_eq!(addresses.len(), POOL);
        assert!(matches!(
            place
                .region
                .create::<Port>(&admin(), vec![port_of(*network)])
                .await,
            Err(RegionError::IpAddressGenerationFailure(_))
        ));
    }
    let free = VNIS as usize - networks.len();
    let made = place
        .region
        .create::<Network>(&admin(), vec![NetworkCreate::default(); free])
        .await
        .unwrap();
    assert_eq!(made.len(), free);
    assert!(matches!(
        place
            .region
            .create::<Network>(&admin(), vec![NetworkCreate::default()])
            .await,
        Err(RegionError::NoNetworkAvailable)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn nothing_is_given_twice_or_lost_under_concurrent_clients(
        clients in prop::collection::vec(prop::collection::vec(step(), 0..40), 2..10),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async move {
            let place = few_of_everything();
            let mut networks = Vec::new();
            for _ in 0..2 {
                let network = place.network().await;
                place.subnet(network, "10.0.0.0/28").await;
                place.subnet(network, "fd00::/124").await;
                networks.push(network);
            }
            let oracle = Arc::new(Mutex::new(Oracle::default()));
            let state = place.region.snapshot();
            for network in state.state.networks().iter() {
                oracle.lock().unwrap().vnis.insert(network.segmentation_id);
            }
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|steps| tokio::spawn(client(place.region.clone(), steps, networks.clone(), Arc::clone(&oracle))))
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            {
            let oracle = oracle.lock().unwrap();
            assert!(oracle.addresses.is_empty() && oracle.macs.is_empty());
            assert_eq!(oracle.vnis.len(), networks.len());
            }
            nothing_is_lost(&place, &networks).await;
        });
    }
}

/// More MAC addresses than there are: the last is found or the refusal is Neutron's; none is given twice.
#[tokio::test]
async fn macs_run_out_and_come_back() {
    let place = few_of_everything();
    let network = place.network().await;
    let mut held = BTreeMap::new();
    let refusal = loop {
        match place.try_port(port_of(network)).await {
            Ok(port) => assert!(held.insert(port.mac_address, port.id).is_none()),
            Err(refusal) => break refusal,
        }
    };
    assert!(
        matches!(refusal, RegionError::MacAddressGenerationFailure(_)),
        "{refusal}"
    );
    // 64 tries at the last of 16 addresses miss once in sixty; the last but one is always there in this replay.
    assert!(held.len() >= MACS - 1, "{}", held.len());
    let (mac, id) = held.pop_first().unwrap();
    place.region.delete::<Port>(&owner(), id, None).await.unwrap();
    let again = PortCreate {
        mac_address: Some(mac),
        ..port_of(network)
    };
    assert_eq!(place.try_port(again).await.unwrap().mac_address, mac);
}
