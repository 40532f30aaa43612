//! Edits of topologies and what becomes of them.

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION};

use super::Client;
use super::error::ClientError;
use super::stream::NewsStream;
use super::transport::{Path, parse, route};
use crate::rest::Page;
use crate::rest::mutation::{
    ApplyRequest, EditAnswer, EditRequest, FreeAddress, FreeSubnet, LayoutShape, MutationQuery,
    MutationShape, NowRequest, SubnetQuery,
};

impl Client {
    /// `POST /topologies/{id}/mutations`.
    pub async fn edit(&self, id: &str, request: &EditRequest) -> Result<EditAnswer, ClientError> {
        self.post(&["topologies", id, "mutations"], request).await
    }

    /// `POST /topologies/{id}/apply`.
    pub async fn apply(&self, id: &str, request: &ApplyRequest) -> Result<EditAnswer, ClientError> {
        self.post(&["topologies", id, "apply"], request).await
    }

    /// `GET /topologies/{id}/mutations`: one page, newest first.
    pub async fn mutations(
        &self,
        id: &str,
        query: &MutationQuery,
    ) -> Result<Page<MutationShape>, ClientError> {
        self.page(&["topologies", id, "mutations"], query).await
    }

    /// `GET /mutations/{id}`.
    pub async fn mutation(&self, id: &str) -> Result<MutationShape, ClientError> {
        self.get(&["mutations", id]).await
    }

    /// `POST /mutations/{id}/cancel`.
    pub async fn cancel_mutation(&self, id: &str) -> Result<MutationShape, ClientError> {
        self.act(Method::POST, &["mutations", id, "cancel"]).await
    }

    /// `POST /mutations/{id}/revert`.
    pub async fn revert_mutation(
        &self,
        id: &str,
        request: &NowRequest,
    ) -> Result<EditAnswer, ClientError> {
        self.post(&["mutations", id, "revert"], request).await
    }

    /// `POST /topologies/{id}/mutate`: other services for every decky.
    pub async fn mutate_all(
        &self,
        id: &str,
        request: &NowRequest,
    ) -> Result<EditAnswer, ClientError> {
        self.post(&["topologies", id, "mutate"], request).await
    }

    /// `POST /topologies/{id}/deckies/{decky}/mutate`: other services for one decky.
    pub async fn mutate_decky(
        &self,
        id: &str,
        decky: &str,
        request: &NowRequest,
    ) -> Result<EditAnswer, ClientError> {
        self.post(&["topologies", id, "deckies", decky, "mutate"], request)
            .await
    }

    /// `GET /topologies/{id}/layout`.
    pub async fn layout(&self, id: &str) -> Result<LayoutShape, ClientError> {
        self.get(&["topologies", id, "layout"]).await
    }

    /// `PUT /topologies/{id}/layout`.
    pub async fn put_layout(
        &self,
        id: &str,
        layout: &LayoutShape,
    ) -> Result<LayoutShape, ClientError> {
        let path: Path<'_> = &["topologies", id, "layout"];
        let route = route(&Method::PUT, path);
        let request = self.request(Method::PUT, path).json(layout);
        parse(&self.answer(request, &route).await?, &route)
    }

    /// `GET /topologies/{id}/next-subnet`.
    pub async fn next_subnet(
        &self,
        id: &str,
        query: &SubnetQuery,
    ) -> Result<FreeSubnet, ClientError> {
        let path: Path<'_> = &["topologies", id, "next-subnet"];
        let route = route(&Method::GET, path);
        let request = self.request(Method::GET, path).query(query);
        parse(&self.answer(request, &route).await?, &route)
    }

    /// `GET /topologies/{id}/lans/{lan}/next-address`.
    pub async fn next_address(&self, id: &str, lan: &str) -> Result<FreeAddress, ClientError> {
        self.get(&["topologies", id, "lans", lan, "next-address"])
            .await
    }

    /// `GET /topologies/{id}/events`: live. With the id of the last message that was had, it goes
    /// on after that one; without, it begins with a snapshot.
    pub async fn topology_news(
        &self,
        id: &str,
        last: Option<&str>,
    ) -> Result<NewsStream, ClientError> {
        let path: Path<'_> = &["topologies", id, "events"];
        let mut request = self
            .http
            .request(Method::GET, self.url(path))
            .header(AUTHORIZATION, &self.authorization)
            .header(ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let route = route(&Method::GET, path);
        let response = self.send(request, &route).await?;
        Ok(NewsStream::new(response, route))
    }
}
