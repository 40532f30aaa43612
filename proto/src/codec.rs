//! The gRPC codec of this fleet: prost, with buffers that begin small.
//!
//! tonic begins each direction of each stream with 8 KiB. A master holds two streams of every
//! host, most of them quiet, so that would be most of its memory.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a heartbeat needs. Buffers grow with what is sent.
const BUFFER: usize = 64;
/// tonic's own: how much is gathered before it is handed to the connection.
const YIELD: usize = 32 * 1024;

/// Prost with small first buffers; named by the generated code.
#[derive(Debug, Clone)]
pub struct QuietCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for QuietCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for QuietCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, YIELD))
    }
}
