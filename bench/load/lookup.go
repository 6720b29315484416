package load

import (
	"context"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// nameServer is where a task's resolver asks.
const nameServer = "127.0.0.11:53"

// Lookup asks the name server of a task, once and without trying again, for the
// IPv4 addresses of a name; whoever has the first one is the task that answered.
// An answer without addresses is a failure.
func Lookup(name string, dial Dialer) Ask {
	query := dns.Client{Timeout: Timeout}
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		conn, err := dial(ctx, "udp", nameServer)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(Timeout)); err != nil {
			return "", err
		}
		answer, _, err := query.ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), &dns.Conn{Conn: conn})
		if err != nil {
			return "", err
		}
		if answer.Rcode != dns.RcodeSuccess || len(answer.Answer) == 0 {
			return "", fmt.Errorf("%s with %d addresses", dns.RcodeToString[answer.Rcode], len(answer.Answer))
		}
		a, ok := answer.Answer[0].(*dns.A)
		if !ok {
			return "", fmt.Errorf("an answer of type %T", answer.Answer[0])
		}
		return a.A.String(), nil
	}
}
