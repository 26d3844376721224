//! Network devices of this host, as the kernel tells of them (rtnetlink): watching them, setting them up.
//!
//! Which device belongs to which port is decided in [`crate::core`].

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, new_multicast_connection, packet_core::NetlinkPayload};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::core::Event;

/// Pause before netlink is opened again after it failed.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index; a new device of the same name has another one.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
}

/// Why links cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// No netlink socket.
    #[error("netlink cannot be opened")]
    Open(#[source] std::io::Error),
    /// The links cannot be listed.
    #[error("the links cannot be listed")]
    List(#[source] rtnetlink::Error),
    /// The kernel's messages ended.
    #[error("the kernel's messages about links ended")]
    Ended,
}

/// Tells of all links at first and of each change after, and sets links up on request; until the receiver of the
/// events is gone. Opens netlink again when it fails.
pub(crate) async fn watch(events: mpsc::Sender<Event>, mut up: mpsc::Receiver<(u32, String)>) {
    while !events.is_closed() {
        match watch_once(&events, &mut up).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "watching links failed; trying again"
                );
                tokio::time::sleep(REOPEN_AFTER).await;
            }
        }
    }
}

async fn watch_once(
    events: &mpsc::Sender<Event>,
    up: &mut mpsc::Receiver<(u32, String)>,
) -> Result<(), WatchError> {
    let (connection, handle, mut messages) =
        new_multicast_connection(&[MulticastGroup::Link]).map_err(WatchError::Open)?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let mut names = HashMap::new();
    // Subscribed first, then listed: a change in between is seen twice rather than never.
    if list(&handle, events, &mut names).await? {
        return Ok(());
    }
    loop {
        let told = tokio::select! {
            message = messages.next() => match message.ok_or(WatchError::Ended)?.0.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    new_link(link, &mut names, events).await
                }
                // A device that leaves a bridge is also "deleted", in the bridge's family.
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                    if link.header.interface_family == AddressFamily::Unspec =>
                {
                    match names.remove(&link.header.index) {
                        Some(name) => events.send(Event::LinkGone(name)).await,
                        None => Ok(()),
                    }
                }
                NetlinkPayload::Overrun(_) => {
                    tracing::warn!("messages of the kernel about links were lost; listing them all");
                    if list(&handle, events, &mut names).await? {
                        return Ok(());
                    }
                    Ok(())
                }
                _ => Ok(()),
            },
            request = up.recv() => match request {
                Some((index, name)) => set_up(&handle, index, name, events).await,
                None => return Ok(()),
            },
        };
        if told.is_err() {
            drop(connection);
            return Ok(());
        }
    }
}

type Told = Result<(), mpsc::error::SendError<Event>>;

/// Tells of all links; true when nobody listens any more.
async fn list(
    handle: &Handle,
    events: &mpsc::Sender<Event>,
    names: &mut HashMap<u32, String>,
) -> Result<bool, WatchError> {
    let found: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(WatchError::List)?;
    let links: Vec<Link> = found.iter().filter_map(read).collect();
    *names = links.iter().map(|link| (link.index, link.name.clone())).collect();
    Ok(events.send(Event::Links(links)).await.is_err())
}

async fn new_link(
    message: LinkMessage,
    names: &mut HashMap<u32, String>,
    events: &mpsc::Sender<Event>,
) -> Told {
    if message.header.interface_family != AddressFamily::Unspec {
        return Ok(());
    }
    let Some(link) = read(&message) else { return Ok(()) };
    if let Some(old) = names.insert(link.index, link.name.clone())
        && old != link.name
    {
        events.send(Event::LinkGone(old)).await?;
    }
    events.send(Event::Link(link)).await
}

async fn set_up(handle: &Handle, index: u32, name: String, events: &mpsc::Sender<Event>) -> Told {
    let up = LinkUnspec::new_with_index(index).up().build();
    match handle.link().set(up).execute().await {
        // The kernel's own message tells that it is up.
        Ok(()) => Ok(()),
        Err(error) => events.send(Event::LinkRefused(name, error.to_string())).await,
    }
}

fn read(message: &LinkMessage) -> Option<Link> {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    Some(Link {
        index: message.header.index,
        name,
        up: message.header.flags.contains(LinkFlags::Up),
    })
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
