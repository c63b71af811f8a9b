// Command etcd is one etcd that asks its clients for certificates: upstream's server as a program of
// its own, without the proxies of upstream's command.
package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	dir := flag.String("data-dir", "", "where the data are")
	address := flag.String("url", "", "where clients connect to")
	cert := flag.String("cert-file", "", "certificate of the server")
	key := flag.String("key-file", "", "its key")
	ca := flag.String("trusted-ca-file", "", "CA of the clients")
	flag.Parse()
	if err := run(*dir, *address, *cert, *key, *ca); err != nil {
		fmt.Fprintf(os.Stderr, "etcd: %v\n", err)
		os.Exit(1)
	}
}

func run(dir, address, cert, key, ca string) error {
	clients, err := url.Parse(address)
	if err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Dir, c.LogLevel = dir, "error"
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{{Scheme: "http", Host: "localhost:0"}} // it is alone
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile, c.ClientTLSInfo.TrustedCAFile = cert, key, ca
	c.ClientTLSInfo.ClientCertAuth = true
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	return <-e.Err()
}
