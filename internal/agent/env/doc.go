// Package env makes the environment of a container: env and envFrom, references
// to ConfigMaps, Secrets, fields and resources, the variables of services, and
// $(NAME) in values, commands and arguments, all as the kubelet does.
//
// The pods' worker (agent/pods) calls Make before each container. The package
// keeps nothing and reads objects only through objects.Source.
package env
