package zone

import (
	"slices"
	"strconv"
)

// wellKnown are the names that ports have without anybody's saying so: those of
// IANA's Service Name and Transport Protocol Port Number Registry that services
// in clusters use. They are the same for TCP and UDP.
var wellKnown = map[uint16]string{
	21: "ftp", 22: "ssh", 25: "smtp", 53: "domain", 80: "http", 88: "kerberos", 110: "pop3", 123: "ntp", 143: "imap", 161: "snmp",
	389: "ldap", 443: "https", 465: "submissions", 514: "syslog", 587: "submission", 636: "ldaps", 853: "domain-s", 993: "imaps",
	995: "pop3s", 1433: "ms-sql-s", 1883: "mqtt", 2049: "nfs", 3306: "mysql", 3478: "stun",
	4222: "nats", 5060: "sip", 5061: "sips", 5222: "xmpp-client", 5269: "xmpp-server", 5432: "postgresql", 5671: "amqps",
	5672: "amqp", 6379: "redis", 8080: "http-alt", 8883: "secure-mqtt", 11211: "memcache", 27017: "mongodb",
}

// labels are the first labels that a port's SRV names have, without the
// underscore: the name it was given or else the one it is known by, and its number.
func (p Port) labels() []string {
	name := p.Name
	if name == "" {
		name = wellKnown[p.Port]
	}
	if name == "" {
		return []string{strconv.Itoa(int(p.Port))}
	}
	return []string{name, strconv.Itoa(int(p.Port))}
}

// ports adds the SRV names of a service (RFC 2782): _port._proto.service, where
// port is the port's name or its number, for the service's name and its aliases.
func (x *index) ports(s Service) {
	for _, p := range s.Ports {
		var targets []Target
		for _, t := range s.Tasks {
			if !t.Draining {
				targets = append(targets, Target{Name: t.FullName + "." + x.name, Port: p.Port, Addrs: t.Addrs})
			}
		}
		for _, label := range p.labels() {
			for _, name := range append([]string{s.Name}, s.Aliases...) {
				name = canonical("_" + label + "._" + p.Protocol + "." + name)
				x.srv[name] = append(slices.Clip(x.srv[name]), targets...)
			}
		}
	}
}
