//! Answers without an end: live events and the export.

use std::collections::VecDeque;

use bytes::Bytes;
use reqwest::Response;

use super::error::ClientError;
use super::sse::{Decoder, Frame, MAX_EVENT};
use crate::rest::EventShape;
use crate::rest::mutation::TopologyNews;

/// Live events.
#[derive(Debug)]
pub struct EventStream {
    frames: Frames,
}

/// What happens to one topology, live.
#[derive(Debug)]
pub struct NewsStream {
    frames: Frames,
}

#[derive(Debug)]
struct Frames {
    chunks: ExportStream,
    decoder: Decoder,
    waiting: VecDeque<Frame>,
}

impl EventStream {
    pub(super) fn new(response: Response, route: String) -> Self {
        Self {
            frames: Frames::new(response, route),
        }
    }

    /// The next event; none when the master has ended the stream.
    pub async fn next(&mut self) -> Result<Option<EventShape>, ClientError> {
        while let Some(frame) = self.frames.next().await? {
            match serde_json::from_str(&frame.data) {
                Ok(event) => return Ok(Some(event)),
                Err(source) if frame.name.is_empty() || frame.name == "event" => {
                    return Err(self.frames.malformed(source));
                }
                // A later release may send other things by other names.
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

impl NewsStream {
    pub(super) fn new(response: Response, route: String) -> Self {
        Self {
            frames: Frames::new(response, route),
        }
    }

    /// The next message and its id, with which a later stream goes on after it; none when the
    /// master has ended the stream.
    pub async fn next(&mut self) -> Result<Option<(String, TopologyNews)>, ClientError> {
        while let Some(frame) = self.frames.next().await? {
            let data = frame.data.as_str();
            let news = match frame.name.as_str() {
                "snapshot" => serde_json::from_str(data).map(TopologyNews::Snapshot),
                "edited" => serde_json::from_str(data).map(TopologyNews::Edited),
                "status" => serde_json::from_str(data).map(TopologyNews::Status),
                "mutation" => serde_json::from_str(data).map(TopologyNews::Mutation),
                "decky_mutated" => serde_json::from_str(data).map(TopologyNews::DeckyMutated),
                // A later release may send other things by other names.
                _ => continue,
            };
            let news = news.map_err(|source| self.frames.malformed(source))?;
            return Ok(Some((frame.id, news)));
        }
        Ok(None)
    }
}

impl Frames {
    fn new(response: Response, route: String) -> Self {
        Self {
            chunks: ExportStream::new(response, route),
            decoder: Decoder::default(),
            waiting: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return Ok(Some(frame));
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
            self.waiting.extend(frames);
        }
    }

    fn malformed(&self, source: serde_json::Error) -> ClientError {
        ClientError::Malformed {
            route: self.chunks.route.clone(),
            source,
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
