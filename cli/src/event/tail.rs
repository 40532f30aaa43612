//! Live events: a stream that is taken up again, from the last row seen, whenever it breaks.

use std::time::Duration;

use proto::client::{Client, ClientError};
use proto::rest::{EventQuery, EventShape};

use crate::failure::Failure;
use crate::output::Output;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Gives every event after `query.after` to `each`, for ever. Ends only by a failure that time
/// does not mend.
pub(crate) async fn follow(
    client: &Client,
    mut query: EventQuery,
    output: &Output,
    mut each: impl FnMut(&EventShape) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        let broken = match client.event_stream(&query).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(event)) => {
                        pause = FIRST_PAUSE;
                        query.after = Some(event.row);
                        each(&event)?;
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        match broken {
            Some(error) if !error.is_transient() => return Err(error.into()),
            Some(ClientError::Unreachable { .. }) if pause == FIRST_PAUSE => {
                output.note("the master does not answer; waiting for it");
            }
            _ => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
