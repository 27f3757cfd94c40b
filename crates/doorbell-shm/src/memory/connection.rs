//! The two regions of a connection: made by the server, adopted by the client.

use std::io;

use super::Layout;
use super::region::{MAGIC, OwnRegion, PeerRegion};
use crate::sys::{
    PeerAccess, RegionError, RegionHandle, check_region, create_empty_region, create_region,
    seal_size, seal_writable_by_us_only,
};

/// What the server has after making the memory of a connection.
#[derive(Debug)]
pub struct ServerMemory {
    /// Region S, which the server writes.
    pub own: OwnRegion,
    /// Region C, which the client writes.
    pub peer: PeerRegion,
    /// Handle of S, to be sent to the client.
    pub server_handle: RegionHandle,
    /// Handle of C, to be sent to the client.
    pub client_handle: RegionHandle,
    /// Handle of the second memory of S, to be sent to the client, if S is in two.
    pub pages_handle: Option<RegionHandle>,
}

/// Makes both regions of a connection, as the server.
///
/// When this returns, S can be mapped writable by nobody any more, and neither region can change its
/// size. The handles are to be sent to the client, which calls [`adopt`].
///
/// # Errors
///
/// What the operating system says; without memory or descriptors a connection is refused.
pub fn create(server: Layout, client: Layout) -> io::Result<ServerMemory> {
    create_with(server, client, None)
}

/// As [`create`], with S in two memories: its first page, which has all words, sealed as ever; and the rest of the ring in a memory that is
/// sealed in size only, so that it can be given back to the system.
///
/// # Errors
///
/// As for [`create`].
pub fn create_in_two(server: Layout, client: Layout) -> io::Result<ServerMemory> {
    let pages = create_empty_region(server.region_bytes())?;
    seal_size(&pages)?;
    create_with(server, client, Some(pages))
}

fn create_with(
    server: Layout,
    client: Layout,
    pages_handle: Option<RegionHandle>,
) -> io::Result<ServerMemory> {
    crate::failpoint!("memory.create.before");
    let server_handle = create_region(server.region_bytes())?;
    let client_handle = create_region(client.region_bytes())?;
    let own = OwnRegion::map(&server_handle, pages_handle.as_ref(), server)?;
    crate::failpoint!("memory.create.unsealed");
    seal_writable_by_us_only(&server_handle)?;
    seal_size(&client_handle)?;
    let peer = PeerRegion::map(&client_handle, None, client)?;
    peer.magic(); // whatever it is: the first access is a page fault, and it need not be the I/O worker's, who would wait for the locks of the address space
    crate::failpoint!("memory.create.after");
    Ok(ServerMemory {
        own,
        peer,
        server_handle,
        client_handle,
        pages_handle,
    })
}

/// Takes over the regions that the server has sent, as the client: C to write and S to read.
///
/// Both are checked before anything in them is looked at. The handles are closed; the mappings stay.
///
/// # Errors
///
/// [`AdoptError`] if a region is not what was agreed on; close the connection.
pub fn adopt(
    server_handle: RegionHandle,
    client_handle: RegionHandle,
    server: Layout,
    client: Layout,
) -> Result<(OwnRegion, PeerRegion), AdoptError> {
    adopt_with(server_handle, None, client_handle, server, client)
}

/// As [`adopt`], with S in two memories, as [`create_in_two`] makes it.
///
/// # Errors
///
/// As for [`adopt`].
pub fn adopt_in_two(
    server_handle: RegionHandle,
    pages_handle: RegionHandle,
    client_handle: RegionHandle,
    server: Layout,
    client: Layout,
) -> Result<(OwnRegion, PeerRegion), AdoptError> {
    let pages = Some(pages_handle);
    adopt_with(server_handle, pages, client_handle, server, client)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "nobody needs the handles after this"
)]
fn adopt_with(
    server_handle: RegionHandle,
    pages_handle: Option<RegionHandle>,
    client_handle: RegionHandle,
    server: Layout,
    client: Layout,
) -> Result<(OwnRegion, PeerRegion), AdoptError> {
    check_region(
        &server_handle,
        server.region_bytes(),
        PeerAccess::WriterIsPeer,
    )
    .map_err(|source| AdoptError::Server { source })?;
    if let Some(pages) = &pages_handle {
        // Fixed in size, and writable: it must be possible to give it back. What the server writes there, only we read.
        check_region(pages, server.region_bytes(), PeerAccess::WriterIsUs)
            .map_err(|source| AdoptError::Server { source })?;
    }
    check_region(
        &client_handle,
        client.region_bytes(),
        PeerAccess::WriterIsUs,
    )
    .map_err(|source| AdoptError::Client { source })?;
    crate::failpoint!("memory.adopt.checked");
    let peer = PeerRegion::map(&server_handle, pages_handle.as_ref(), server)?;
    check_magic(&peer)?;
    let own = OwnRegion::map(&client_handle, None, client)?;
    crate::failpoint!("memory.adopt.after");
    Ok((own, peer))
}

/// Why a client does not use the regions it was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The region that the server writes is not acceptable.
    #[error("the server's region is not acceptable")]
    Server {
        /// In which respect.
        source: RegionError,
    },
    /// The region that we are to write is not acceptable.
    #[error("the region meant for us is not acceptable")]
    Client {
        /// In which respect.
        source: RegionError,
    },
    /// The server's region does not start as a region does.
    #[error("the server's region starts with {found:#018x}, which is no region of version 1")]
    Magic {
        /// The first eight bytes, as a little-endian number.
        found: u64,
    },
    /// A region could not be mapped.
    #[error("cannot map a region")]
    Map(#[from] io::Error),
}

fn check_magic(region: &PeerRegion) -> Result<(), AdoptError> {
    match region.magic() {
        MAGIC => Ok(()),
        found => Err(AdoptError::Magic { found }),
    }
}
