//! Answers without an end: live events and the export.

use std::collections::VecDeque;

use bytes::Bytes;
use reqwest::Response;

use super::error::ClientError;
use super::sse::{Decoder, Frame, MAX_EVENT};
use crate::rest::EventShape;

/// Live events.
#[derive(Debug)]
pub struct EventStream {
    chunks: ExportStream,
    decoder: Decoder,
    frames: VecDeque<Frame>,
}

impl EventStream {
    pub(super) fn new(response: Response, route: String) -> Self {
        Self {
            chunks: ExportStream::new(response, route),
            decoder: Decoder::default(),
            frames: VecDeque::new(),
        }
    }

    /// The next event; none when the master has ended the stream.
    pub async fn next(&mut self) -> Result<Option<EventShape>, ClientError> {
        loop {
            while let Some(frame) = self.frames.pop_front() {
                match serde_json::from_str(&frame.data) {
                    Ok(event) => return Ok(Some(event)),
                    Err(source) if frame.name.is_empty() || frame.name == "event" => {
                        let route = self.chunks.route.clone();
                        return Err(ClientError::Malformed { route, source });
                    }
                    // A later release may send other things by other names.
                    Err(_) => {}
                }
            }
            let Some(chunk) = self.chunks.next().await? else {
                return Ok(None);
            };
            let mut frames = Vec::new();
            self.decoder
                .push(&chunk, &mut frames)
                .map_err(|_| ClientError::TooLong {
                    route: self.chunks.route.clone(),
                    limit: MAX_EVENT,
                })?;
            self.frames.extend(frames);
        }
    }
}

/// The bytes of an export, as they come.
#[derive(Debug)]
pub struct ExportStream {
    response: Response,
    route: String,
}

impl ExportStream {
    pub(super) fn new(response: Response, route: String) -> Self {
        Self { response, route }
    }

    /// The next bytes; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let url = self.response.url().clone();
        self.response
            .chunk()
            .await
            .map_err(|error| ClientError::of(error, &self.route, &url))
    }
}
