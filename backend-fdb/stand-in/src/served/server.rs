//! The side that has the cluster.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};

use super::{ToClient, ToServer, frame, read_frame};
use crate::cluster::Cluster;

/// Serves a cluster until the process ends, on a thread of its own.
pub(crate) fn start(cluster: Arc<Cluster>) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("stand-in-server".to_owned()).spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&cluster), stream));
            }
        });
    })?;
    Ok(address)
}

/// One client. What it asked for ends with its connection, except commits, which go on.
async fn serve(cluster: Arc<Cluster>, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let (mut reader, mut writer) = stream.into_split();
    let (replies, mut outgoing): (UnboundedSender<Vec<u8>>, UnboundedReceiver<Vec<u8>>) = unbounded_channel();
    let mut work = JoinSet::new();
    let mut waiting: HashMap<u64, AbortHandle> = HashMap::new();
    work.spawn(async move {
        while let Some(frame) = outgoing.recv().await {
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    while let Ok(message) = read_frame(&mut reader).await {
        waiting.retain(|_, task| !task.is_finished());
        match message {
            ToServer::Request(id, request) => {
                let (cluster, replies) = (Arc::clone(&cluster), replies.clone());
                let task = work.spawn(async move {
                    if let Ok(reply) = frame(&ToClient(id, cluster.call(request).await)) {
                        replies.send(reply).ok();
                    }
                });
                waiting.insert(id, task);
            }
            ToServer::Cancel(id) => {
                if let Some(task) = waiting.remove(&id) {
                    task.abort();
                }
            }
        }
        while work.try_join_next().is_some() {}
    }
}
