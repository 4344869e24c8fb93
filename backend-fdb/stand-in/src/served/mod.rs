//! A cluster of one process for others: the process that has it listens on the loopback interface, and gives out a cluster
//! file with which other processes find it. That is what tests need that kill or stop a client.
//!
//! Every frame is its length (four bytes, little-endian) and a [`ToServer`] or a [`ToClient`].

pub(crate) mod client;
pub(crate) mod server;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::cluster::protocol::{Reply, Request};
use crate::code::Code;

/// The description, in a connection string, of a cluster that another process has.
pub(crate) const DESCRIPTION: &str = "served";

#[derive(Debug, Serialize, Deserialize)]
enum ToServer {
    Request(u64, Request),
    /// Nobody waits for this request any more.
    Cancel(u64),
}

#[derive(Debug, Serialize, Deserialize)]
struct ToClient(u64, Result<Reply, Code>);

fn frame(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    bytes = postcard::to_extend(message, bytes).map_err(std::io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(std::io::Error::other)?;
    if let Some(prefix) = bytes.first_chunk_mut() {
        *prefix = length.to_le_bytes();
    }
    Ok(bytes)
}

fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> std::io::Result<T> {
    postcard::from_bytes(bytes).map_err(std::io::Error::other)
}

async fn read_frame<T: for<'a> Deserialize<'a>>(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<T> {
    let length = stream.read_u32_le().await?;
    let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
    stream.read_exact(&mut bytes).await?;
    parse(&bytes)
}
